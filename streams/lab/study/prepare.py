"""Source models of a study: trained once per seed and recipe, kept in the folder, shared by all methods.

sources/seed-0-none.safetensors     tensors
sources/seed-0-none.json            figures of the training; written last, so its presence means complete
sources/seed-0-none.policy          the policy's settings for it (`acclimate.streams.lab.study.choices`)
sources/seed-0-none.NAME.KIND       a second model that is taught for it (`acclimate.streams.lab.study.taught`)

Each remembers which state of the code made it (`acclimate.streams.lab.study.code_state`), for the report to tell.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from acclimate.adaptation.data.dataset import Dataset
from acclimate.adaptation.method import SourceContext
from acclimate.adaptation.methods.prepared import Prepared
from acclimate.adaptation.model.nets import Classifier, from_tensors, to_tensors
from acclimate.adaptation.model.spec import expected_tensors
from acclimate.adaptation.model.train import check_source, default_epochs, default_spec, fit
from acclimate.registry.bundles.tensor_file import read_tensors, write_tensors
from acclimate.registry.folder import replace_file
from acclimate.streams.lab.making.source_context import source_context
from acclimate.streams.lab.study.choices import read_policy
from acclimate.streams.lab.study.code_state import SOURCE_MAKERS, code_digest
from acclimate.streams.lab.study.folder import source_path
from acclimate.streams.lab.study.recipes import PLAIN, augmentation_of, respelt
from acclimate.streams.lab.study.taught import ALIGNMENTS, GENERATORS

__all__ = ["PreparedSource", "SourceFacts", "is_prepared", "load_source", "prepare_source", "read_facts", "save_source"]


@dataclass(frozen=True)
class SourceFacts:
    """The facts of a source's training.

    Attributes:
        seed, recipe: The source.
        windows: The number of windows that it was trained on.
        epochs: The passes over them.
        loss: The mean of the last epoch, nats.
        code: The state of the code that trained it; None where that is not known.
    """

    seed: int
    recipe: str
    windows: int
    epochs: int
    loss: float
    code: str | None = None


@dataclass(frozen=True, eq=False)
class PreparedSource:
    """A trained source and everything that methods may know of it.

    Attributes:
        context: The context that `acclimate.adaptation.methods.catalogue.make_method` takes.
        facts: The facts of its training.
        digest: The digest of the stored tensors, to tell models apart; empty where nothing is stored yet.
        prepared: Everything else that was prepared for it so far.
    """

    context: SourceContext
    facts: SourceFacts
    digest: str = ""
    prepared: Prepared = field(default_factory=Prepared)


def prepare_source(dataset: Dataset, recipe: str, seed: int, epochs: int | None = None) -> PreparedSource:
    """Train the source of one seed with one recipe (``none``, or as `parse_augmentation` reads it); minutes.

    It is trained on all windows of the source, as `train_source` trains the model that it returns. That function first
    measures on held-out windows, which is not needed where targets are there to be measured on.

    Raises:
        ConfigError: The recipe cannot be read or does not suit the channels.
        DataError: The source makes no model.
    """
    source, spec = dataset.source, default_spec(dataset)
    check_source(source.windows, source.labels, source.groups, spec)
    augmentation = augmentation_of(recipe)
    epochs = epochs or default_epochs(len(source))
    fitted = fit(source.windows, source.labels, spec, seed, epochs, augmentation)
    facts = SourceFacts(seed, recipe, len(source), epochs, fitted.losses[-1], code_digest(SOURCE_MAKERS))
    return PreparedSource(source_context(fitted.model, source.windows, source.labels, seed), facts)


def save_source(folder: Path, prepared: PreparedSource) -> None:
    """Write a source into the study's folder; the JSON file comes last and makes it count."""
    model = prepared.context.model
    assert isinstance(model, Classifier)  # made above
    recipe, seed = prepared.facts.recipe, prepared.facts.seed
    replace_file(source_path(folder, recipe, seed, "safetensors"), write_tensors(to_tensors(model)))
    replace_file(
        source_path(folder, recipe, seed, "json"),
        (json.dumps({"facts": asdict(prepared.facts)}, indent=1) + "\n").encode(),
    )


def load_source(folder: Path, dataset: Dataset, recipe: str, seed: int) -> PreparedSource:
    """Read a source that `save_source` wrote.

    Raises:
        ContractError: The tensors do not fit the network.
    """
    tensors = source_path(folder, recipe, seed, "safetensors")
    spec = default_spec(dataset)
    stored = tensors.read_bytes()
    model = from_tensors(spec, read_tensors(str(tensors), stored, expected_tensors(spec)))
    prepared = Prepared(
        read_policy(folder, recipe, seed),
        GENERATORS.read(folder, recipe, seed),
        ALIGNMENTS.read(folder, recipe, seed),
    )
    facts = _read_facts(source_path(folder, recipe, seed, "json"))
    digest = hashlib.blake2b(stored, digest_size=6).hexdigest()
    context = source_context(model, dataset.source.windows, dataset.source.labels, seed)
    return PreparedSource(context, facts, digest, prepared)


def is_prepared(folder: Path, recipe: str, seed: int) -> bool:
    """Say whether a source is there, complete."""
    return source_path(folder, recipe, seed, "json").exists()


def read_facts(folder: Path) -> list[SourceFacts]:
    """Return the facts of all prepared sources, by seed and recipe."""
    found = [_read_facts(path) for path in (folder / "sources").glob("seed-*.json")]
    return sorted(found, key=lambda facts: (facts.seed, facts.recipe != PLAIN, facts.recipe))


def _read_facts(path: Path) -> SourceFacts:
    content = json.loads(path.read_text())["facts"]
    known = {field.name: content[field.name] for field in fields(SourceFacts) if field.name in content}
    return SourceFacts(**{**known, "recipe": respelt(known["recipe"])})
