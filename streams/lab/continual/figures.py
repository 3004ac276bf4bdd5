"""Draw a comparison: the accuracy matrix of each way of learning, and how much each forgets."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from acclimate.streams.lab.continual.results import Line, Results
from acclimate.streams.lab.study.plots import STYLE, write_plot

__all__ = ["draw_figures"]

_PANELS = 12
_NUMBERED = 10  # groups; more leave no room for numbers


def draw_figures(folder: Path, results: Results) -> list[Path]:
    """Draw both plots for each kind of feedback into ``folder/figures`` and return their paths."""
    target = folder / "figures"
    target.mkdir(exist_ok=True)
    paths = []
    with mpl.rc_context(STYLE):
        for fraction, wrong in dict.fromkeys((line.label_fraction, line.wrong) for line in results.lines):
            chosen = [
                n for n, line in enumerate(results.lines) if (line.label_fraction, line.wrong) == (fraction, wrong)
            ]
            name = f"{100 * fraction:g}-percent" + (f"-{100 * wrong:g}-wrong" if wrong else "")
            drawn = {
                f"matrix-{name}": _matrices(results, chosen[:_PANELS]),
                f"forgetting-{name}": _forgetting([results.lines[n] for n in chosen]),
            }
            for stem, figure in drawn.items():
                paths.append(target / f"{stem}.svg")
                write_plot(paths[-1], figure, stem)
    return paths


def _matrices(results: Results, chosen: Sequence[int]) -> Figure:
    columns = min(4, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(0.6 + 2.5 * columns, 0.6 + 2.4 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(chosen) :]:
        axes.set_visible(False)
    for axes, number in zip(grid.flat, chosen, strict=False):
        line, matrix = results.lines[number], 100 * results.matrices[number].mean(axis=0)
        image = axes.imshow(matrix, cmap="viridis", vmin=0, vmax=100)
        if len(matrix) <= _NUMBERED:
            for (row, column), value in np.ndenumerate(matrix):
                colour = "black" if value > 60 else "white"
                axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=6.5, color=colour)
        axes.set_title(_name(line))
        step = max(1, len(results.groups) // 8)
        shown = range(0, len(results.groups), step)
        axes.set_xticks(shown, [results.groups[n] for n in shown])
        axes.set_yticks(shown, [results.groups[n] for n in shown])
    figure.supxlabel("accuracy on group, %")
    figure.supylabel("after learning group")
    figure.colorbar(image, ax=grid, shrink=0.6)
    return figure


def _forgetting(lines: Sequence[Line]) -> Figure:
    figure = Figure(figsize=(7.2, 1.2 + 0.34 * len(lines)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    y = np.arange(len(lines))[::-1]
    left.barh(y, [100 * line.forgetting for line in lines], height=0.6, color="#d55e00")
    left.set_title("forgetting, points")
    right.barh(y, [100 * (line.accuracy - line.start) for line in lines], height=0.6, color="#0072b2")
    right.axvline(0, color="#5c6670", linewidth=0.8)
    right.set_title("gain over the source, points")
    left.set_yticks(y, [_name(line) for line in lines])
    return figure


def _name(line: Line) -> str:
    source = "" if line.recipe == "none" else f" ({line.recipe})"
    return f"{line.method}, {line.learning_rate:g}{source}"
