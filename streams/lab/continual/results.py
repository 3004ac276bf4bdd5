"""Make lines of runs: one per source, way of learning, rate and kind of feedback; means over seeds."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.adaptation.continual.accuracy_matrix import AccuracyMatrix
from acclimate.streams.lab.continual.options import FINE_TUNED, ContinualOptions
from acclimate.streams.lab.continual.runs import FineTuned, Learned, Run, read_run
from acclimate.streams.lab.continual.study import list_runs

__all__ = ["Line", "Results", "collect", "figures"]


@dataclass(frozen=True)
class Line:
    """A way of learning on a kind of source, over its seeds. Accuracies and shares are 0 to 1.

    Attributes:
        recipe, method, learning_rate, label_fraction, wrong: The same as in `Run`.
        seeds: The number of seeds that are finished.
        accuracy: ACC of the last model over all groups; ``start`` is the source's.
        fine_tuned: The accuracy of the reference, which is taught on all labels of each group alone; None where it is
            not finished.
        learning_accuracy: The accuracy on each group at the end of its own turn, as of devices that keep the model they
            have then.
        last_accuracy: The last model's accuracy on the last group.
        bwt, fwt, forgetting: See `AccuracyMatrix`.
        return_accuracy: The last model's accuracy on the first group, as if it came back.
        source_start, source_accuracy: The accuracy of source and last model on the source's judged stretches.
        prequential, change: The accuracy while learning, on windows as they came, and its change against the source.
        harmed: The share of decided pairs of group and seed whose whole interval of the change lies below zero; None
            where none is decided.
        worst_change, worst_group: The group with the lowest mean change.
        efficiency: The area under accuracy against labels.
        labels, steps: The mean number per run.
        seconds_per_step: The median over seeds.
        largest_distance: The largest relative distance of a parameter from the source.
        lipschitz_ratio: The last model's Lipschitz bound over the source's.
    """

    recipe: str
    method: str
    learning_rate: float
    label_fraction: float
    wrong: float
    seeds: int
    accuracy: float
    start: float
    fine_tuned: float | None
    learning_accuracy: float
    last_accuracy: float
    bwt: float
    fwt: float
    forgetting: float
    return_accuracy: float
    source_start: float
    source_accuracy: float
    prequential: float
    change: float
    harmed: float | None
    worst_change: float
    worst_group: str
    efficiency: float
    labels: float
    steps: float
    seconds_per_step: float
    largest_distance: float
    lipschitz_ratio: float

    @property
    def closed(self) -> float | None:
        """The share of the distance from the source to the fine-tuned reference that it closes."""
        return self._closed(self.accuracy)

    @property
    def closed_at_once(self) -> float | None:
        """The same share for `learning_accuracy`."""
        return self._closed(self.learning_accuracy)

    def _closed(self, accuracy: float) -> float | None:
        if self.fine_tuned is None or self.fine_tuned <= self.start:
            return None
        return (accuracy - self.start) / (self.fine_tuned - self.start)


@dataclass(frozen=True, eq=False)
class Results:
    """The results of everything that is finished.

    Attributes:
        lines: The lines, in the order asked for.
        groups: The names of the target's groups, in order.
        matrices: The accuracy matrices of each line, (seeds, T, T).
        runs: The kept results of each run.
        missing: The number of runs that were asked for and are not finished.
        failed: One text for each run that failed just now.
    """

    lines: tuple[Line, ...]
    groups: tuple[str, ...]
    matrices: tuple[NDArray[np.float64], ...]
    runs: tuple[FineTuned | Learned, ...]
    missing: int
    failed: tuple[str, ...]


def collect(options: ContinualOptions, folder: Path, failed: Sequence[str] = ()) -> Results:
    """Read the finished ones of the runs that the options ask for.

    Raises:
        ContractError: A file is damaged.
    """
    wanted = list_runs(options, folder)
    found = {run: result for run in wanted if (result := read_run(folder, run)) is not None}
    references = {(run.recipe, run.seed): made["accuracy"] for run, made in found.items() if "accuracy" in made}
    learned = {run: made for run, made in found.items() if "matrix" in made}
    lines, matrices = [], []
    for key in dict.fromkeys(_line_key(run) for run in wanted if run.method != FINE_TUNED):
        mine = [run for run in learned if _line_key(run) == key]
        if mine:
            kept = [learned[run] for run in mine]
            known = [references[run.recipe, run.seed] for run in mine if (run.recipe, run.seed) in references]
            reference = fmean(fmean(values) for values in known) if len(known) == len(mine) else None
            lines.append(_line(mine[0], kept, reference))
            matrices.append(np.array([each["matrix"] for each in kept]))
    groups = tuple(next(iter(found.values()))["groups"]) if found else ()
    return Results(
        tuple(lines), groups, tuple(matrices), tuple(found.values()), len(wanted) - len(found), tuple(failed)
    )


def figures(line: Line) -> dict[str, Any]:
    """Return a line as plain values."""
    return {**asdict(line), "closed": line.closed, "closed_at_once": line.closed_at_once}


def _line_key(run: Run) -> tuple[object, ...]:
    return run.recipe, run.label_fraction, run.wrong, run.method, run.learning_rate


def _line(run: Run, kept: Sequence[Learned], fine_tuned: float | None) -> Line:
    made = [AccuracyMatrix(np.array(each["matrix"]), np.array(each["start"])) for each in kept]
    changes = np.array([each["change"] for each in kept]).mean(axis=0)  # (T,)
    decided = [harmed for each in kept for harmed in each["harmed"] if harmed is not None]
    worst = int(changes.argmin())
    return Line(
        recipe=run.recipe,
        method=run.method,
        learning_rate=run.learning_rate,
        label_fraction=run.label_fraction,
        wrong=run.wrong,
        seeds=len(kept),
        accuracy=fmean(matrix.accuracy for matrix in made),
        start=fmean(float(matrix.start.mean()) for matrix in made),
        fine_tuned=fine_tuned,
        learning_accuracy=fmean(matrix.learning_accuracy for matrix in made),
        last_accuracy=fmean(float(matrix.values[-1, -1]) for matrix in made),
        bwt=fmean(matrix.backward_transfer for matrix in made),
        fwt=fmean(matrix.forward_transfer for matrix in made),
        forgetting=fmean(matrix.forgetting for matrix in made),
        return_accuracy=fmean(float(matrix.values[-1, 0]) for matrix in made),
        source_start=fmean(each["source_accuracy"][0] for each in kept),
        source_accuracy=fmean(each["source_accuracy"][-1] for each in kept),
        prequential=fmean(fmean(each["prequential"]) for each in kept),
        change=float(changes.mean()),
        harmed=fmean(decided) if decided else None,
        worst_change=float(changes[worst]),
        worst_group=kept[0]["groups"][worst],
        efficiency=fmean(each["efficiency"] for each in kept),
        labels=fmean(each["labels"] for each in kept),
        steps=fmean(each["steps"] for each in kept),
        seconds_per_step=float(np.median([each["seconds_per_step"] for each in kept])),
        largest_distance=max(_largest(each) for each in kept),
        lipschitz_ratio=fmean(each["moved"]["lipschitz"] / each["moved"]["source_lipschitz"] for each in kept),
    )


def _largest(kept: Learned) -> float:
    return max(kept["moved"]["relative"].values(), default=0.0)
