"""Name a run, keep its result in a file, and read it.

runs/NAME.json    written whole or not at all, so its presence means finished
"""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from adaptation.errors import ContractError
from registry.folder import replace_file

__all__ = ["Run", "is_finished", "keep_run", "read_run"]


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


def is_finished(folder: Path, run: Run) -> bool:
    """Say whether a run is kept."""
    return _path(folder, run).exists()


def keep_run(folder: Path, run: Run, result: dict[str, Any]) -> None:
    """Keep the result of a run."""
    path = _path(folder, run)
    replace_file(path, (json.dumps({"run": asdict(run), **result}, indent=1, allow_nan=False) + "\n").encode())


def read_run(folder: Path, run: Run) -> dict[str, Any] | None:
    """Return the result of a run, or None.

    Raises:
        ContractError: Its file is damaged.
    """
    path = _path(folder, run)
    if not path.exists():
        return None
    try:
        result: dict[str, Any] = json.loads(path.read_text())
        if Run(**result["run"]) != run:
            raise ValueError(f"it holds {result['run']}")
    except (ValueError, TypeError, KeyError) as error:
        raise ContractError(f"{path} is damaged ({error}); delete it and its run is made again") from error
    return result


def _path(folder: Path, run: Run) -> Path:
    plain = f"{run.method} {run.learning_rate:g} {run.label_fraction:g} {run.wrong:g} {run.recipe} {run.seed}"
    return folder / "runs" / f"{re.sub('[^A-Za-z0-9.+-]+', '_', plain)}.json"
