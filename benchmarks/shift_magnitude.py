"""What the shift magnitude sees: ``python -m benchmarks.shift_magnitude``.

For every recording under ``../shared/data`` that is there (without any: the simulated fleet) this trains a plain source
model, takes held-out source windows in ten stretches, lets each stretch be another device, and corrupts it by every
kind at every severity. It prints as Markdown tables, or with ``--json``, for the magnitude and each of its parts alone:

* AUROC of corrupted against the same windows clean: 0.5 sees nothing, 1 separates all, below 0.5 looks closer to the
  source than clean windows do; and the same within a class, averaged over classes, because a stream of one class shows
  only that;
* Spearman's correlation of windows with severity 0 to 5;
* Spearman's correlation with the loss in accuracy: over kind, severity and stretch (median of the score, loss in
  points against the clean stretch), and within a class over kind and severity, averaged over classes.

Held out is the last fifth of what each source device shows of each class: the corruption is the only shift. With
``--hold-out groups``, whole devices, where there are five or more, as in `acclimate train`: their own shift is added.

The first table also counts the corruptions that cost 5 points or more, how many of them a score sees (AUROC of 0.7 or
more), and how many look closer to the source than clean windows. docs/shift-magnitude.md holds a run and what follows.
"""

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from acclimate.adaptation.data.corruptions import CORRUPTIONS, SEVERITIES, TUNING, applicable, centre_and_scale, corrupt
from acclimate.adaptation.data.dataset import Dataset, Split
from acclimate.adaptation.data.load import load
from acclimate.adaptation.data.simulate import simulate_fleet
from acclimate.adaptation.lean.shift import calibrate, measure
from acclimate.adaptation.model.train import default_epochs, default_spec, fit, hold_out, predict
from benchmarks.rank_statistics import auroc, spearman

DATA = Path(__file__).parents[2] / "shared" / "data"
RECORDINGS: dict[str, dict[str, Any]] = {
    "chest_har": {"label": "y4", "source": "device=1-5"},
    "myo_emg": {"label": "y", "source": "device=0-6,10-14"},
    "cwru_bearing": {"label": "y", "source": "load=0"},
    "gas_drift": {"label": "y", "source": "batch=1-2", "transform": "signedlog"},
}
STRETCHES = 10
SCORES = ("magnitude", "mean_part", "variance_part")
_COSTLY, _SEEN = 5.0, 0.7  # points of accuracy; AUROC from which a corruption counts as seen
_FEWEST = 10  # windows of a class, below which figures within it are left out

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scored:
    """Windows of one condition: their scores by name, (n,) each, and whether the model is right, (n,)."""

    scores: Mapping[str, Float64]
    right: NDArray[np.bool_]


@dataclass(frozen=True)
class Cell:
    """What one kind at one severity did, all stretches together; AUROC by score."""

    kind: str
    severity: int
    loss_points: float
    auroc: dict[str, float]
    auroc_within_class: dict[str, float]


@dataclass(frozen=True)
class Study:
    """Results of one recording; correlations by score."""

    data: str
    windows: int
    clean_accuracy: float
    cells: tuple[Cell, ...]
    severity_correlation: dict[str, dict[str, float | None]]  # by kind, then by score
    loss_correlation: dict[str, float | None]
    loss_correlation_within_class: dict[str, float | None]


def main() -> None:
    parser = argparse.ArgumentParser(description="What the shift magnitude sees of every corruption.")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with the recordings")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="passes of training; those of `acclimate train` when not given")
    parser.add_argument("--windows", type=int, default=400, help="held-out windows per recording")
    parser.add_argument("--hold-out", choices=("tail", "groups"), default="tail", help="later windows, or new devices")
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    studies = [
        study(name, dataset, arguments.seed, arguments.epochs, arguments.windows, arguments.hold_out)
        for name, dataset in _datasets(arguments.data)
    ]
    print(json.dumps([asdict(result) for result in studies], indent=2) if arguments.json else markdown(studies))


def study(name: str, dataset: Dataset, seed: int, epochs: int | None, windows: int, by: str = "tail") -> Study:
    """Train on a data set's source and measure what the shift magnitude sees on its held-out windows."""
    source = dataset.source
    mask = _held_out(source, seed, by)
    spec, training = default_spec(dataset), source.windows[~mask]
    passes = default_epochs(len(source)) if epochs is None else epochs
    model = fit(training, source.labels[~mask], spec, seed, passes).model
    calibration = calibrate(model, training, source.windows[mask])
    centre, scale = centre_and_scale(training)
    held_out = np.flatnonzero(mask)
    picks = held_out[np.unique(np.linspace(0, len(held_out) - 1, windows).astype(np.int64))]
    x, labels = source.windows[picks], source.labels[picks]
    stretches = np.array_split(np.arange(len(x)), STRETCHES)

    def scored(shifted: NDArray[np.float32]) -> Scored:
        found = measure(model, shifted, calibration)
        scores = {score: getattr(found, score).astype(np.float64) for score in SCORES}
        return Scored(scores, predict(model, shifted).argmax(axis=1) == labels)

    kinds = [kind for kind in CORRUPTIONS if applicable(kind, *x.shape[1:])]
    corrupted = {
        (kind, severity): scored(
            np.concatenate(
                [
                    corrupt(x[rows], kind, severity, scale, STRETCHES * seed + device, centre=centre)
                    for device, rows in enumerate(stretches)
                ]
            )
        )
        for kind in kinds
        for severity in SEVERITIES
    }
    return summarise(name, scored(x), corrupted, labels, stretches)


def summarise(
    name: str,
    clean: Scored,
    corrupted: Mapping[tuple[str, int], Scored],
    labels: NDArray[np.int64],
    stretches: Sequence[NDArray[np.int64]],
) -> Study:
    """Turn scores per window into AUROC and correlations; ``stretches`` are the rows of each device."""
    classes = [rows for k in np.unique(labels) if len(rows := np.flatnonzero(labels == k)) >= _FEWEST]

    def within(score: str, seen: Scored) -> float:
        return float(np.mean([auroc(clean.scores[score][rows], seen.scores[score][rows]) for rows in classes]))

    cells = tuple(
        Cell(
            kind,
            severity,
            _loss_points(clean, seen, np.arange(len(labels))),
            {score: auroc(clean.scores[score], seen.scores[score]) for score in SCORES},
            {score: within(score, seen) for score in SCORES},
        )
        for (kind, severity), seen in corrupted.items()
    )

    def with_severity(kind: str, score: str) -> float | None:
        values = [clean.scores[score], *(corrupted[kind, severity].scores[score] for severity in SEVERITIES)]
        return spearman(np.concatenate(values), np.repeat((0, *SEVERITIES), len(labels)))

    def with_loss(score: str, parts: Sequence[NDArray[np.int64]]) -> float | None:
        pairs = [
            (float(np.median(seen.scores[score][rows])), _loss_points(clean, seen, rows))
            for seen in corrupted.values()
            for rows in parts
        ]
        return spearman([median for median, _ in pairs], [loss for _, loss in pairs])

    def with_loss_within_class(score: str) -> float | None:
        found = [value for rows in classes if (value := with_loss(score, [rows])) is not None]
        return float(np.mean(found)) if found else None

    return Study(
        data=name,
        windows=len(labels),
        clean_accuracy=float(clean.right.mean()),
        cells=cells,
        severity_correlation={
            kind: {score: with_severity(kind, score) for score in SCORES}
            for kind in dict.fromkeys(kind for kind, _ in corrupted)
        },
        loss_correlation={score: with_loss(score, stretches) for score in SCORES},
        loss_correlation_within_class={score: with_loss_within_class(score) for score in SCORES},
    )


def markdown(studies: Sequence[Study]) -> str:
    """Write tables: one over all recordings, one of each; five figures in a cell are severities 1 to 5."""
    lines = [
        "| recording | windows | accuracy, clean | with loss: magnitude, mean, variance | the same within a class "
        f"| cost {_COSTLY:.0f} points or more | of these seen: magnitude, mean, variance | closer than clean |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for found in studies:
        over_all, within = found.loss_correlation, found.loss_correlation_within_class
        costly = [cell.auroc for cell in found.cells if cell.loss_points >= _COSTLY]
        seen = " ".join(str(sum(area[score] >= _SEEN for area in costly)) for score in SCORES)
        closer = sum(area["magnitude"] < 0.5 for area in costly)
        lines.append(
            f"| {found.data} | {found.windows} | {100 * found.clean_accuracy:.1f} % | {_figures(over_all.values())} "
            f"| {_figures(within.values())} | {len(costly)} of {len(found.cells)} | {seen} | {closer} |"
        )
    for found in studies:
        lines += [
            "",
            f"### {found.data}",
            "",
            "| corruption | half | loss, points | magnitude | mean part | variance part | within a class: magnitude "
            "| mean part | variance part | with severity: magnitude, mean, variance |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        for kind, correlations in found.severity_correlation.items():
            cells = [cell for cell in found.cells if cell.kind == kind]
            losses = " ".join(str(round(cell.loss_points)) for cell in cells)
            columns = [_figures(cell.auroc[score] for cell in cells) for score in SCORES]
            columns += [_figures(cell.auroc_within_class[score] for cell in cells) for score in SCORES]
            half = "tuning" if kind in TUNING else "evaluation"
            lines.append(f"| {kind} | {half} | {losses} | {' | '.join(columns)} | {_figures(correlations.values())} |")
    return "\n".join(lines)


def _figures(values: Iterable[float | None]) -> str:
    return " ".join("-" if value is None else f"{round(value, 2) + 0.0:.2f}" for value in values)


def _loss_points(clean: Scored, seen: Scored, rows: NDArray[np.int64]) -> float:
    return 100.0 * float(clean.right[rows].mean() - seen.right[rows].mean())


def _held_out(source: Split, seed: int, by: str) -> NDArray[np.bool_]:
    if by == "groups":
        return hold_out(source.labels, source.groups, seed)[0]
    # A group alone is held out by its tail.
    return np.concatenate([hold_out(source.labels[part], source.groups[part], seed)[0] for _, part in source.streams()])


def _datasets(folder: Path) -> Iterator[tuple[str, Dataset]]:
    present = {name: options for name, options in RECORDINGS.items() if (folder / f"{name}.npz").exists()}
    for name, options in present.items():
        yield name, load(folder / f"{name}.npz", **options)
    if not present:
        yield "simulated", simulate_fleet(0)


if __name__ == "__main__":
    main()
