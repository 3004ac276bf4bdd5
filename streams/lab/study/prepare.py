"""Source models of an evaluation: trained once per seed and recipe, kept in the folder, shared by all methods.

sources/seed-0-none.safetensors     tensors
sources/seed-0-none.json            figures of the training; written last, so its presence means complete
sources/seed-0-none.policy          what the policy may do with it (JSON), where the policy is evaluated
sources/seed-0-none.NAME.KIND       what is taught for it (`streams.lab.study.taught`), where methods need it
sources/choice.json                 what ``auto`` chose, with the figures that decided

Each remembers which state of the code made it (`streams.lab.study.code_state`), for the report to tell.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from adaptation.data.dataset import Dataset
from adaptation.errors import ContractError
from adaptation.evaluation.run import balanced_rows
from adaptation.method import SourceContext
from adaptation.methods.policy_calibration import calibrate_policy
from adaptation.methods.policy_settings import PolicySettings, RungScore
from adaptation.methods.prepared import Prepared
from adaptation.model.nets import Classifier, from_tensors, to_tensors
from adaptation.model.spec import expected_tensors
from adaptation.model.train import check_source, default_epochs, default_spec, fit
from registry.bundles.tensor_file import read_tensors, write_tensors
from registry.folder import replace_file
from streams.lab.making.source_model import choose_recipe
from streams.lab.study.code_state import CHOICE_MAKERS, POLICY_MAKERS, SOURCE_MAKERS, code_digest
from streams.lab.study.folder import source_path
from streams.lab.study.recipes import PLAIN, augmentation_of
from streams.lab.study.taught import ALIGNMENTS, GENERATORS

__all__ = [
    "PreparedSource",
    "choice_path",
    "is_prepared",
    "load_source",
    "policy_path",
    "prepare_choice",
    "prepare_policy",
    "prepare_source",
    "read_choice",
    "read_facts",
    "read_policy",
    "read_policy_code",
    "save_source",
]

_SAMPLE = 512  # source windows that a method may look at
_CHOICE_SEED = 0


@dataclass(frozen=True, eq=False)
class PreparedSource:
    """A trained source and what methods may know of it.

    Attributes:
        context: For `adaptation.methods.catalogue.make_method`.
        facts: Plain values about the training, for results and summary.
        digest: Of the stored tensors, to tell models apart; empty where nothing is stored yet.
        prepared: What else was prepared for it so far.
    """

    context: SourceContext
    facts: Mapping[str, Any]
    digest: str = ""
    prepared: Prepared = field(default_factory=Prepared)


def prepare_source(dataset: Dataset, recipe: str, seed: int, epochs: int | None = None) -> PreparedSource:
    """Train the source of one seed with one recipe (``none``, or as `parse_augmentation` reads it); minutes.

    On all windows of the source, as `train_source` makes the model that it returns; what that one measures on held-out
    windows first is not needed where targets are there to be measured on.

    Raises:
        ConfigError: The recipe cannot be read or does not suit the channels.
        DataError: The source makes no model.
    """
    source, spec = dataset.source, default_spec(dataset)
    check_source(source.windows, source.labels, source.groups, spec)
    augmentation = augmentation_of(recipe)
    epochs = epochs or default_epochs(len(source))
    fitted = fit(source.windows, source.labels, spec, seed, epochs, augmentation)
    facts = {
        "seed": seed,
        "recipe": recipe,
        "windows": len(source),
        "epochs": epochs,
        "loss": fitted.losses[-1],
        "code": code_digest(SOURCE_MAKERS),
    }
    return PreparedSource(_context(dataset, fitted.model, seed), facts)


def save_source(folder: Path, prepared: PreparedSource) -> None:
    """Write a source into the evaluation's folder; the JSON file comes last and makes it count."""
    model = prepared.context.model
    assert isinstance(model, Classifier)  # made above
    recipe, seed = prepared.facts["recipe"], prepared.facts["seed"]
    replace_file(source_path(folder, recipe, seed, "safetensors"), write_tensors(to_tensors(model)))
    replace_file(source_path(folder, recipe, seed, "json"), _json({"facts": dict(prepared.facts)}))


def load_source(folder: Path, dataset: Dataset, recipe: str, seed: int) -> PreparedSource:
    """Read what `save_source` wrote.

    Raises:
        ContractError: The tensors do not fit the network.
    """
    tensors = source_path(folder, recipe, seed, "safetensors")
    content = json.loads(source_path(folder, recipe, seed, "json").read_text())
    spec = default_spec(dataset)
    stored = tensors.read_bytes()
    model = from_tensors(spec, read_tensors(str(tensors), stored, expected_tensors(spec)))
    prepared = Prepared(
        read_policy(folder, recipe, seed),
        GENERATORS.read(folder, recipe, seed),
        ALIGNMENTS.read(folder, recipe, seed),
    )
    digest = hashlib.blake2b(stored, digest_size=6).hexdigest()
    return PreparedSource(_context(dataset, model, seed), content["facts"], digest, prepared)


def is_prepared(folder: Path, recipe: str, seed: int) -> bool:
    """Say whether a source is there, complete."""
    return source_path(folder, recipe, seed, "json").exists()


def read_facts(folder: Path) -> list[dict[str, Any]]:
    """Return the facts of all prepared sources, by seed and recipe."""
    found = [_renamed(json.loads(path.read_text())["facts"]) for path in (folder / "sources").glob("seed-*.json")]
    return sorted(found, key=lambda facts: (facts["seed"], facts["recipe"] != PLAIN, facts["recipe"]))


def prepare_choice(folder: Path, dataset: Dataset, epochs: int | None = None) -> str:
    """Let ``auto`` choose, once for all seeds: the recipe belongs to the recordings. Keep the choice; minutes.

    Raises:
        DataError: The source makes no model.
    """
    choice = choose_recipe(dataset, "auto", _CHOICE_SEED, epochs=epochs).choice
    if choice is None:
        raise ContractError("`auto` came without a choice")
    recipe = choice.name
    path = choice_path(folder)
    kept = {
        "recipe": recipe,
        "weak": choice.weak,
        "judged_by": choice.judged_by,
        "table": [asdict(score) for score in choice.table],
        "code": code_digest(CHOICE_MAKERS),
    }
    replace_file(path, _json(kept))
    return recipe


def prepare_policy(folder: Path, dataset: Dataset, recipe: str, seed: int) -> PolicySettings:
    """Let the source's own devices decide what the policy may do on this seed, keep it and return it; minutes.

    Raises:
        ConfigError: The recipe cannot be read or does not suit the channels.
        DataError: A training leads to numbers that are not finite.
    """
    source = dataset.source
    augmentation = augmentation_of(recipe)
    settings = calibrate_policy(source.windows, source.labels, source.groups, default_spec(dataset), seed, augmentation)
    path = policy_path(folder, recipe, seed)
    made = {"seed": seed, "recipe": recipe, "code": code_digest(POLICY_MAKERS)}
    replace_file(path, _json({**made, **asdict(settings)}))
    return settings


def policy_path(folder: Path, recipe: str, seed: int) -> Path:
    """Return where the policy's settings are kept."""
    return source_path(folder, recipe, seed, "policy")


def read_policy(folder: Path, recipe: str, seed: int) -> PolicySettings | None:
    """Return what `prepare_policy` kept, or None.

    Raises:
        ContractError: It has other fields, from a state of the code too far away.
    """
    path = policy_path(folder, recipe, seed)
    if not path.exists():
        return None
    content = json.loads(path.read_text())
    fields = {name: value for name, value in content.items() if name not in ("seed", "recipe", "code")}
    try:
        table = tuple(RungScore(**{**score, "agreement": tuple(score["agreement"])}) for score in content["table"])
        return PolicySettings(**{**fields, "agreement_limits": tuple(fields["agreement_limits"]), "table": table})
    except (KeyError, TypeError) as error:  # other fields
        raise ContractError(f"{path} is from another state of the code; --again policy makes it anew") from error


def read_policy_code(folder: Path, recipe: str, seed: int) -> str | None:
    """Return the state of the code that made the policy's settings; None where it is not known."""
    path = policy_path(folder, recipe, seed)
    return json.loads(path.read_text()).get("code") if path.exists() else None


def choice_path(folder: Path) -> Path:
    """Return where the choice of ``auto`` is kept."""
    return folder / "sources" / "choice.json"


def read_choice(folder: Path) -> dict[str, Any] | None:
    """Return what `prepare_choice` kept, or None."""
    path = choice_path(folder)
    return _renamed(json.loads(path.read_text())) if path.exists() else None


def _renamed(content: dict[str, Any]) -> dict[str, Any]:
    """Spell a recipe as it is spelt now, with ``+``: older folders have commas."""
    return {**content, "recipe": content["recipe"].replace(",", "+")}


def _context(dataset: Dataset, model: torch.nn.Module, seed: int) -> SourceContext:
    rows = balanced_rows(dataset.source.labels, _SAMPLE, seed)
    recorded, labels = torch.from_numpy(dataset.source.windows), torch.from_numpy(dataset.source.labels)
    return SourceContext(model, recorded[rows], labels[rows], seed, recorded)


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()
