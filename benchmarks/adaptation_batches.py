"""Accuracy against the number of batches that a device has sent, with a method and without it.

Run ``python -m benchmarks.adaptation_batches --evaluation DIR --method mgg --out FILE.svg`` with folders of `acclimate
evaluate`, several for more panels; a folder has one for each kind of source. The k-th batch of every group and seed is
pooled; a stream ends where its group does, and a point is drawn while at least half of the groups still send. The thin
line is one seed's mean, the thick one the mean over seeds. Prints what is drawn of the first batch.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from acclimate.streams.drawing import plot_style, svg_text
from acclimate.streams.lab.evaluate.task_runner import unpack_bits
from acclimate.streams.lab.evaluate.tasks import read_finished
from acclimate.streams.lab.study.folder import FINISHED_FILE

_BATCH = 64


def curves(folder: Path, method: str, stream: str, recipe: str) -> NDArray[np.float64]:
    """Return the accuracy of each seed's k-th batch, (seeds, batches), the mean over groups still sending."""
    finished, _ = read_finished(folder / FINISHED_FILE)
    by_seed: dict[int, list[list[float]]] = {}
    for task, result in finished.items():
        if (task.method, task.stream, task.source, task.batch_size) == (method, stream, recipe, _BATCH):
            for entry in result["groups"]:
                right = unpack_bits(entry)
                parts = [right[first : first + _BATCH] for first in range(0, len(right), _BATCH)]
                by_seed.setdefault(task.seed, []).append([float(part.mean()) for part in parts])
    lengths = sorted(len(batches) for groups in by_seed.values() for batches in groups)
    longest = lengths[len(lengths) // 2]
    return np.array(
        [
            [np.mean([batches[k] for batches in by_seed[seed] if len(batches) > k]) for k in range(longest)]
            for seed in sorted(by_seed)
        ]
    )


def panels(folders: Sequence[Path]) -> list[tuple[Path, str]]:
    """Return every folder with each kind of source in it, the plain one first."""
    found = []
    for folder in folders:
        recipes = {task.source for task in read_finished(folder / FINISHED_FILE)[0]}
        found += [(folder, recipe) for recipe in sorted(recipes, key=lambda recipe: (recipe != "none", recipe))]
    return found


def draw(folders: Sequence[Path], method: str, out: Path) -> None:
    """Draw a column per folder and kind of source, a row per stream."""
    streams, columns = ("ordered", "shuffled"), panels(folders)
    with mpl.rc_context(plot_style("#1f2328", "#59636e", "#d1d9e0")):
        figure = Figure(figsize=(2.5 * len(columns), 5.2), layout="constrained")
        axes = figure.subplots(len(streams), len(columns), squeeze=False, sharey="col")
        for column, (folder, recipe) in enumerate(columns):
            kind = folder.name.rpartition("-")[2] + ("" if recipe == "none" else ", robust source")
            for row, stream in enumerate(streams):
                axis = axes[row][column]
                for name, colour in (("source", "#8c959f"), ("same-loss-sgd", "#bc4c00"), (method, "#0969da")):
                    found = 100 * curves(folder, name, stream, recipe)
                    batches = np.arange(1, found.shape[1] + 1)
                    axis.plot(batches, found.T, color=colour, lw=0.5, alpha=0.5)
                    axis.plot(batches, found.mean(axis=0), color=colour, lw=2, label=name)
                    print(f"{kind}, {stream}, first batch: {name} {found[:, 0].mean():.1f} %")
                axis.set_title(f"{kind},\n{stream}" if recipe != "none" else f"{kind}, {stream}", fontsize=9)
                axis.set_xlabel("batch of 64 windows")
                if column == 0:
                    axis.set_ylabel("accuracy in it, %")
        axes[0][0].legend(fontsize=8)
        out.write_text(svg_text(figure, out.stem, transparent=False))


def main() -> None:
    parser = argparse.ArgumentParser(description="Accuracy against the number of adaptation batches.")
    parser.add_argument("--evaluation", type=Path, action="append", required=True, help="folder of an evaluation")
    parser.add_argument("--method", required=True, help="beside the source and SGD on the same loss")
    parser.add_argument("--out", type=Path, required=True, help="SVG file")
    arguments = parser.parse_args()
    draw(arguments.evaluation, arguments.method, arguments.out)


if __name__ == "__main__":
    main()
