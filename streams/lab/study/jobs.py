"""The jobs that make sources and whatever belongs to them, and the `SourceMaker` that does them in a worker process."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from acclimate.adaptation.data.dataset import Dataset
from acclimate.adaptation.methods.policy_settings import PolicySettings
from acclimate.infra.allocator import keep_freed_memory
from acclimate.streams.lab.study.choices import (
    KeptChoice,
    Progress,
    prepare_choice,
    prepare_policy,
    read_choice,
    recipes_of,
)
from acclimate.streams.lab.study.prepare import (
    PreparedSource,
    SourceFacts,
    is_prepared,
    load_source,
    prepare_source,
    save_source,
)
from acclimate.streams.lab.study.taught import KINDS

__all__ = [
    "CalibratePolicy",
    "ChooseRecipe",
    "SourceJob",
    "SourceMaker",
    "Teach",
    "TrainSource",
    "make_sources",
    "set_up_worker",
]


@dataclass(frozen=True)
class ChooseRecipe:
    """Let ``auto`` choose, once for all seeds of a study: the recipe belongs to the recordings."""

    seed: int = 0

    def __str__(self) -> str:
        return "choice of augmentation"


@dataclass(frozen=True)
class TrainSource:
    """Train the source of this seed with this recipe."""

    seed: int
    recipe: str

    def __str__(self) -> str:
        return f"training of source {self.recipe}, seed {self.seed}"


@dataclass(frozen=True)
class CalibratePolicy:
    """Find out what the policy may do with this source."""

    seed: int
    recipe: str

    def __str__(self) -> str:
        return f"calibration of the policy for source {self.recipe}, seed {self.seed}"


@dataclass(frozen=True)
class Teach:
    """Teach a variant of one of `KINDS` for this source."""

    kind: str
    seed: int
    recipe: str
    name: str

    def __str__(self) -> str:
        return f"{KINDS[self.kind].work.format(self.name)} source {self.recipe}, seed {self.seed}"


SourceJob = ChooseRecipe | TrainSource | CalibratePolicy | Teach


def set_up_worker() -> None:
    """Set this process up for jobs: one thread of torch, as results depend on their number."""
    keep_freed_memory()
    torch.set_num_threads(1)


class SourceMaker:
    """Does the jobs, and keeps the sources that it loaded last.

    Args:
        folder: The study's folder, which keeps everything.
        dataset: Recordings; everything is made from their source.
        epochs: The passes of source training; None is the default.
    """

    def __init__(self, folder: Path, dataset: Dataset, epochs: int | None = None) -> None:
        self._folder, self._dataset, self._epochs = folder, dataset, epochs
        self.load: Callable[[str, int], PreparedSource] = lru_cache(maxsize=4)(self._load)

    def do(self, job: SourceJob, progress: Progress | None = None) -> KeptChoice | SourceFacts | PolicySettings | None:
        """Do one job, keep what it makes, and return what others may ask of it.

        Args:
            job: The job.
            progress: Called before each training of a choice or a calibration.
        """
        match job:
            case ChooseRecipe():
                return prepare_choice(self._folder, self._dataset, self._epochs, job.seed, progress)
            case CalibratePolicy():
                return prepare_policy(self._folder, self._dataset, job.recipe, job.seed, progress)
            case TrainSource():
                prepared = prepare_source(self._dataset, job.recipe, job.seed, self._epochs)
                save_source(self._folder, prepared)
                return prepared.facts
            case Teach():
                context = self.load(job.recipe, job.seed).context
                kind = KINDS[job.kind]
                kind.teach(self._folder, self._dataset, context, job.recipe, job.name, time.process_time)
                return None

    def _load(self, recipe: str, seed: int) -> PreparedSource:
        return load_source(self._folder, self._dataset, recipe, seed)


def make_sources(folder: Path, kinds: Sequence[str], seeds: int, do_all: Callable[[Sequence[SourceJob]], None]) -> None:
    """Make the sources that are not there yet, and let ``auto`` choose where it has not.

    Args:
        folder: The study's folder.
        kinds: Kinds of source, as `acclimate.streams.lab.study.recipes.parse_sources` reads them.
        seeds: The number of seeds: 0, 1, 2, ...
        do_all: A function that does jobs, any number at once, and returns when all are done.
    """
    choices = [ChooseRecipe()] if "auto" in kinds and read_choice(folder) is None else []
    do_all([*choices, *_missing(folder, [kind for kind in kinds if kind != "auto"], seeds)])
    do_all(_missing(folder, recipes_of(folder, kinds), seeds))


def _missing(folder: Path, recipes: Sequence[str], seeds: int) -> list[TrainSource]:
    return [
        TrainSource(seed, recipe)
        for seed in range(seeds)
        for recipe in dict.fromkeys(recipes)
        if not is_prepared(folder, recipe, seed)
    ]
