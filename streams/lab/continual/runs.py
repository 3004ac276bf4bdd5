"""Name a run, keep its result in a file, and read it.

runs/NAME.json    written whole or not at all, so its presence means finished
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, final

from acclimate.adaptation.errors import ContractError
from acclimate.registry.folder import replace_file

__all__ = ["FineTuned", "Learned", "Moved", "Run", "is_finished", "keep_run", "read_run"]


@dataclass(frozen=True, order=True)
class Run:
    """One way of learning on one source with one seed.

    Attributes:
        recipe: The recipe that the source was trained with, ``none`` for the plain one.
        seed: The seed for everything.
        method: The way of learning, or ``fine-tuned``.
        learning_rate: The learning rate of AdamW.
        label_fraction: The share of windows that get a label.
        wrong: The share of labels that are wrong.
    """

    recipe: str
    seed: int
    method: str
    learning_rate: float
    label_fraction: float
    wrong: float

    def __str__(self) -> str:
        wrong = f", {100 * self.wrong:g} % of them wrong" if self.wrong else ""
        labels = f"{100 * self.label_fraction:g} % labels{wrong}"
        return f"{self.method}, rate {self.learning_rate:g}, {labels}, seed {self.seed}, source {self.recipe}"


@final
class FineTuned(TypedDict):
    """The file of a reference: ``accuracy`` on each group of a model that was taught on this group alone."""

    run: Mapping[str, Any]  # the fields of `Run`
    code: str
    groups: list[str]
    accuracy: list[float]


class Moved(TypedDict):
    """How far the last model is from the source: by tensor, relative to its length, and both Lipschitz bounds."""

    relative: dict[str, float]
    lipschitz: float
    source_lipschitz: float


@final
class Learned(TypedDict):
    """The file of a run that learned the groups one after the other.

    ``matrix`` is (T, T) and ``start`` (T,), as in `AccuracyMatrix`; ``source_accuracy`` is (T + 1,), as in `Outcome`.
    Of each group: ``prequential`` is the accuracy while learning, ``change`` its change against the source, ``harmed``
    tells whether that is harm (None where it is undecided), and ``regret`` is the number of right answers lost.
    """

    run: Mapping[str, Any]  # the fields of `Run`
    code: str
    groups: list[str]
    matrix: list[list[float]]
    start: list[float]
    source_accuracy: list[float]
    prequential: list[float]
    change: list[float]
    harmed: list[bool | None]
    regret: list[int]
    efficiency: float
    labels: int
    steps: int
    skipped: int
    seconds_per_step: float
    moved: Moved


def is_finished(folder: Path, run: Run) -> bool:
    """Say whether a run is kept."""
    return _path(folder, run).exists()


def keep_run(folder: Path, run: Run, result: FineTuned | Learned) -> None:
    """Keep the result of a run."""
    replace_file(_path(folder, run), (json.dumps(result, indent=1, allow_nan=False) + "\n").encode())


def read_run(folder: Path, run: Run) -> FineTuned | Learned | None:
    """Return the result of a run, or None.

    Raises:
        ContractError: Its file is damaged.
    """
    path = _path(folder, run)
    if not path.exists():
        return None
    try:
        result: FineTuned | Learned = json.loads(path.read_text())
        if Run(**result["run"]) != run:
            raise ValueError(f"it holds {result['run']}")
    except (ValueError, TypeError, KeyError) as error:
        raise ContractError(f"{path} is damaged ({error}); delete it and its run is made again") from error
    return result


def _path(folder: Path, run: Run) -> Path:
    plain = f"{run.method} {run.learning_rate:g} {run.label_fraction:g} {run.wrong:g} {run.recipe} {run.seed}"
    return folder / "runs" / f"{re.sub('[^A-Za-z0-9.+-]+', '_', plain)}.json"
