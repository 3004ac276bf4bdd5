"""Second models that are taught for a source and kept beside it: generators and aligned encoders.

Each is taught once per seed, recipe and variant, on the source alone.

sources/seed-0-none.mgg.generator     the facts and the weights, as safetensors with a header of JSON
sources/seed-0-none.cta.alignment
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from acclimate.adaptation.alignment.align import align
from acclimate.adaptation.alignment.aligned import VARIANTS as ALIGNED_VARIANTS
from acclimate.adaptation.alignment.aligned import Aligned, AlignmentSettings, as_tensors, parts_of
from acclimate.adaptation.data.dataset import Dataset
from acclimate.adaptation.errors import ContractError
from acclimate.adaptation.generators.episodes import Recordings
from acclimate.adaptation.generators.generator import VARIANTS as GENERATOR_VARIANTS
from acclimate.adaptation.generators.generator import Generator, Settings
from acclimate.adaptation.generators.meta_train import meta_train
from acclimate.adaptation.generators.valid_range import ValidRange
from acclimate.adaptation.method import SourceContext
from acclimate.adaptation.methods.catalogue import ALIGNED
from acclimate.adaptation.model.train import default_epochs
from acclimate.streams.lab.making.facts_file import read_facts_file, write_facts_file
from acclimate.streams.lab.study.code_state import ALIGNMENT_MAKERS, GENERATOR_MAKERS, Maker, code_digest
from acclimate.streams.lab.study.folder import source_path
from acclimate.streams.lab.study.recipes import PLAIN

__all__ = ["ALIGNMENTS", "GENERATORS", "KINDS", "AlignmentFacts", "GeneratorFacts", "Kind", "TaughtFacts"]


@dataclass(frozen=True)
class TaughtFacts:
    """The facts of anything that was taught.

    Attributes:
        name: The variant.
        seed, recipe: The source model that it was taught for.
        settings: The settings of the variant at that time.
        seconds: The CPU time of the teaching.
        code: The state of the code that taught it, see `acclimate.streams.lab.study.code_state`.
    """

    name: str
    seed: int
    recipe: str
    settings: Mapping[str, Any]
    seconds: float
    code: str


@dataclass(frozen=True)
class GeneratorFacts(TaughtFacts):
    """The facts of a generator's meta-training.

    Attributes:
        valid_range: The fields of its `ValidRange`.
        step_share: The share of its steps that is left at test, above 0 to 1.
        updates: The number of updates.
        best: The fields of the `Check` whose weights were kept.
        helps: True where it beat the source on held-out groups.
    """

    valid_range: Mapping[str, Any]
    step_share: float
    updates: int
    best: Mapping[str, float]
    helps: bool


@dataclass(frozen=True)
class AlignmentFacts(TaughtFacts):
    """The facts of an encoder's alignment; see `acclimate.adaptation.alignment.aligned.Aligned` for the figures."""

    unsafe: tuple[str, ...]
    ssl_mean: float
    ssl_std: float
    matched: float
    mismatched: float


_Settings = TypeVar("_Settings", Settings, AlignmentSettings)
_Facts = TypeVar("_Facts", bound=TaughtFacts)
_Made = TypeVar("_Made")
Figures = dict[str, Any]  # the fields that a kind's facts add to `TaughtFacts`


@dataclass(frozen=True)
class Kind(Generic[_Settings, _Facts, _Made]):
    """A kind of second model that is taught for a source.

    Attributes:
        name: The ending of its files.
        work: The words for its teaching; ``{}`` stands for the variant.
        variants: The settings of each variant, by name.
        needed_by: The variant that a method needs, by the method's name.
        makers: The functions that make it, for `code_digest`.
        facts: The class of its facts.
        train: A function that teaches it by some settings and returns its weights and figures.
        restore: A function that makes it again from settings, facts and weights.
    """

    name: str
    work: str
    variants: Mapping[str, _Settings]
    needed_by: Mapping[str, str]
    makers: tuple[Maker, ...]
    facts: Callable[..., _Facts]
    train: Callable[[Dataset, SourceContext, _Settings], tuple[Mapping[str, Tensor], Figures]]
    restore: Callable[[_Settings, _Facts, dict[str, Tensor]], _Made]

    def needed(self, methods: Iterable[str]) -> list[str]:
        """Return the variants that some methods need."""
        return list(dict.fromkeys(self.needed_by[method] for method in methods if method in self.needed_by))

    def path(self, folder: Path, recipe: str, seed: int, name: str) -> Path:
        """Return where a variant is kept."""
        return source_path(folder, recipe, seed, f"{name}.{self.name}")

    def teach(
        self,
        folder: Path,
        dataset: Dataset,
        context: SourceContext,
        recipe: str,
        name: str,
        clock: Callable[[], float],
    ) -> None:
        """Teach one variant for a source model and keep it; minutes.

        Args:
            folder: The study's folder.
            dataset: Recordings; their source is learned from.
            context: The source model and what methods know of it; it gives the seed.
            recipe: The recipe that the source model was trained with.
            name: A variant.
            clock: A function that gives seconds.

        Raises:
            DataError: The source is too small, or training leads to numbers that are not finite.
        """
        started, settings = clock(), self.variants[name]
        weights, figures = self.train(dataset, context, settings)
        facts = self.facts(
            name=name,
            seed=context.seed,
            recipe=recipe,
            settings=asdict(settings),
            seconds=round(clock() - started, 1),
            code=code_digest(self.makers),
            **figures,
        )
        write_facts_file(self.path(folder, recipe, context.seed, name), weights, asdict(facts))

    def read(self, folder: Path, recipe: str, seed: int) -> dict[str, _Made]:
        """Return everything of this kind that is kept for a source model, by variant.

        Raises:
            ContractError: A file is damaged, or from another state of the code.
        """
        found = {}
        for name, settings in self.variants.items():
            path = self.path(folder, recipe, seed, name)
            if path.exists():
                content, weights = read_facts_file(path)
                facts = self._facts(path, content)
                if facts.settings != asdict(settings):
                    raise _made_otherwise(path, name)
                found[name] = self.restore(settings, facts, weights)
        return found

    def read_facts(self, folder: Path) -> list[_Facts]:
        """Return the facts of all that is kept and is a variant still, by name, recipe and seed.

        Raises:
            ContractError: A file is damaged, or from another state of the code.
        """
        kept = [(path, read_facts_file(path)[0]) for path in (folder / "sources").glob(f"*.{self.name}")]
        facts = [self._facts(path, content) for path, content in kept if content["name"] in self.variants]
        order = list(self.variants)
        return sorted(facts, key=lambda each: (order.index(each.name), each.recipe != PLAIN, each.seed))

    def _facts(self, path: Path, content: dict[str, Any]) -> _Facts:
        try:
            return self.facts(**content)
        except TypeError as error:  # other fields
            raise _made_otherwise(path, content["name"]) from error


def _made_otherwise(path: Path, name: str) -> ContractError:
    return ContractError(f"{path} has other settings than this code; --again {name} makes it anew")


def _meta_train(dataset: Dataset, context: SourceContext, settings: Settings) -> tuple[Mapping[str, Tensor], Figures]:
    source = dataset.source
    trained = meta_train(
        context.model, Recordings(source.windows, source.labels, source.groups), settings, context.seed
    )
    return trained.generator.weights, {
        "valid_range": asdict(trained.generator.valid_range),
        "step_share": trained.generator.step_share,
        "updates": trained.updates,
        "best": asdict(trained.best),
        "helps": trained.helps,
    }


def _generator(settings: Settings, facts: GeneratorFacts, weights: dict[str, Tensor]) -> Generator:
    return Generator(settings, weights, ValidRange(**facts.valid_range), facts.step_share)


def _align(
    dataset: Dataset, context: SourceContext, settings: AlignmentSettings
) -> tuple[Mapping[str, Tensor], Figures]:
    source = dataset.source
    labels = torch.from_numpy(source.labels)
    aligned = align(context, labels, settings, default_epochs(len(source)), dataset.unsafe_augmentations)
    return as_tensors(aligned), {
        "unsafe": list(aligned.unsafe),
        "ssl_mean": aligned.ssl_mean,
        "ssl_std": aligned.ssl_std,
        "matched": aligned.matched,
        "mismatched": aligned.mismatched,
    }


def _aligned(settings: AlignmentSettings, facts: AlignmentFacts, weights: dict[str, Tensor]) -> Aligned:
    encoder, head, projector = parts_of(weights)
    figures = (facts.ssl_mean, facts.ssl_std, facts.matched, facts.mismatched)
    return Aligned(settings, encoder, head, projector, tuple(facts.unsafe), *figures)


GENERATORS: Kind[Settings, GeneratorFacts, Generator] = Kind(
    name="generator",
    work="meta-training of {} for",
    variants=GENERATOR_VARIANTS,
    needed_by={name: name for name in GENERATOR_VARIANTS},
    makers=GENERATOR_MAKERS,
    facts=GeneratorFacts,
    train=_meta_train,
    restore=_generator,
)
ALIGNMENTS: Kind[AlignmentSettings, AlignmentFacts, Aligned] = Kind(
    name="alignment",
    work="alignment of {} with",
    variants=ALIGNED_VARIANTS,
    needed_by=ALIGNED,
    makers=ALIGNMENT_MAKERS,
    facts=AlignmentFacts,
    train=_align,
    restore=_aligned,
)
KINDS: Mapping[str, Kind[Any, Any, Any]] = {kind.name: kind for kind in (GENERATORS, ALIGNMENTS)}
