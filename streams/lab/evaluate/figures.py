"""Draw an evaluation, one SVG each per stream and batch size: accuracy over time, gain per device, harm."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from acclimate.streams.lab.evaluate.lines import Line, summarise_lines
from acclimate.streams.lab.evaluate.options import EvaluationOptions
from acclimate.streams.lab.evaluate.results import Results
from acclimate.streams.lab.evaluate.rows import SOURCE
from acclimate.streams.lab.evaluate.task_runner import unpack_bits
from acclimate.streams.lab.evaluate.tasks import Result, Task, read_finished
from acclimate.streams.lab.study.choices import recipe_of
from acclimate.streams.lab.study.folder import FINISHED_FILE
from acclimate.streams.lab.study.plots import STYLE, write_plot
from acclimate.streams.lab.study.recipes import PLAIN

__all__ = ["draw_figures"]

_PANELS = 12
_CURVES = 4  # besides the sources
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito

Curves = dict[tuple[str, str], dict[str, list[NDArray[np.bool_]]]]  # by (source, method), then group: one per seed


def draw_figures(folder: Path, options: EvaluationOptions, results: Results) -> list[Path]:
    """Draw all plots into ``folder/figures`` and return their paths."""
    target = folder / "figures"
    target.mkdir(exist_ok=True)
    lines = summarise_lines(results)
    finished, _ = read_finished(folder / FINISHED_FILE)
    paths = []
    with mpl.rc_context(STYLE):
        for stream, batch_size in dict.fromkeys((line.stream, line.batch_size) for line in lines):
            mine = [line for line in lines if (line.stream, line.batch_size) == (stream, batch_size)]
            name = f"{stream}-{batch_size}"
            title = f"{stream}, batch {batch_size}" + _stride_note(results)
            curves = _read_curves(finished, folder, options, stream, batch_size)
            drawn = {
                f"accuracy-{name}": _accuracy_over_time(mine, curves, title),
                f"gain-{name}": _gain_per_device(mine, title),
                f"harm-{name}": _harm(mine, title),
            }
            for stem, figure in drawn.items():
                paths.append(target / f"{stem}.svg")
                write_plot(paths[-1], figure, f"{stem} of {results.about['data']}")
    return paths


def _stride_note(results: Results) -> str:
    stride = results.about["stride"]
    return f" (every {stride}th window only)" if stride > 1 else ""


def _read_curves(
    finished: Mapping[Task, Result], folder: Path, options: EvaluationOptions, stream: str, batch_size: int
) -> Curves:
    curves: Curves = {}
    recipes = {augment: recipe_of(folder, augment) for augment in options.shown}
    for task, result in finished.items():
        if (task.stream, task.batch_size) != (stream, batch_size) or task.seed >= options.seeds:
            continue
        for augment, recipe in recipes.items():
            if recipe == task.source:
                for entry in result["groups"]:
                    by_group = curves.setdefault((augment, task.method), {})
                    by_group.setdefault(entry["group"], []).append(unpack_bits(entry))
    return curves


def _accuracy_over_time(lines: Sequence[Line], curves: Curves, title: str) -> Figure:
    """Draw the running accuracy of the sources, of the policy, and of the best others, in one panel per device."""
    others = [line for line in lines if line.method != SOURCE]
    others.sort(key=lambda line: (line.method != "policy", -line.accuracy))
    shown = [line for line in lines if line.method == SOURCE] + others[:_CURVES]
    groups = list(dict.fromkeys(row.group for line in lines for row in line.rows))[:_PANELS]
    columns = min(3, len(groups))
    rows = -(-len(groups) // columns)
    figure = Figure(figsize=(9.2, 0.8 + 1.7 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes in grid.flat[len(groups) :]:
        axes.set_visible(False)
    for axes, group in zip(grid.flat, groups, strict=False):
        axes.set_title(group)
        for place, line in enumerate(shown):
            seeds = curves.get((line.augment, line.method), {}).get(group, [])
            if seeds:
                colour = "#5c6670" if line.method == SOURCE else _COLOURS[place % len(_COLOURS)]
                dashes = ":" if line.method == SOURCE and line.augment == PLAIN else "-"
                label = f"{line.method} ({line.augment})"
                axes.plot(*_running(seeds), dashes, color=colour, linewidth=1.3, label=label)
        axes.set_ylim(0, 102)
    figure.supylabel("accuracy, %")
    figure.supxlabel("share of the stream, %")
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3, title=title, alignment="left")
    return figure


def _running(seeds: Sequence[NDArray[np.bool_]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean over seeds of the accuracy in a sliding twentieth of the stream, at up to 200 places."""
    right = np.mean([seed.astype(np.float64) for seed in seeds], axis=0)
    width = max(1, len(right) // 20)
    total = np.concatenate([[0.0], np.cumsum(right)])
    mean = (total[width:] - total[:-width]) / width
    at = np.unique(np.linspace(0, len(mean) - 1, 200).astype(np.int64))
    return 100 * (at + width / 2) / len(right), 100 * mean[at]


def _gain_per_device(lines: Sequence[Line], title: str) -> Figure:
    groups = list(dict.fromkeys(row.group for line in lines for row in line.rows))
    values = np.full((len(lines), len(groups)), np.nan)
    for place, line in enumerate(lines):
        for column, group in enumerate(groups):
            gains = [row.gain for row in line.rows if row.group == group and row.gain is not None]
            if gains:
                values[place, column] = 100 * float(np.mean(gains))
    figure = Figure(figsize=(3.2 + 0.42 * max(6, len(groups)), 1.2 + 0.22 * len(lines)), layout="constrained")
    axes = figure.subplots()
    known = np.abs(values[np.isfinite(values)])
    limit = max(5.0, float(np.quantile(known, 0.95))) if known.size else 5.0
    image = axes.imshow(values, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
    for (place, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "white" if abs(value) > 0.65 * limit else "black"
            axes.text(column, place, f"{value:+.0f}", ha="center", va="center", fontsize=6.5, color=colour)
    axes.set_yticks(range(len(lines)), [f"{line.method} ({line.augment})" for line in lines])
    axes.set_xticks(range(len(groups)), groups, rotation=0 if max(map(len, groups)) < 5 else 90)
    axes.tick_params(length=0)
    figure.suptitle(f"gain over the plain source, points\n{title}", fontsize=8.5)
    figure.colorbar(image, ax=axes, shrink=0.6)
    return figure


def _harm(lines: Sequence[Line], title: str) -> Figure:
    figure = Figure(figsize=(7.2, 1.2 + 0.22 * len(lines)), layout="constrained")
    axes = figure.subplots()
    y = np.arange(len(lines))[::-1]
    for place, line in zip(y, lines, strict=True):
        interval = line.harmed_interval
        if line.harmed is not None and interval is not None:
            colour = "#d55e00" if line.harmed > 0.05 else "#0072b2"
            axes.barh(place, 100 * line.harmed, height=0.6, color=colour)
            axes.plot([100 * end for end in interval], [place, place], color="#1c2024", linewidth=1)
    axes.axvline(5, color="#5c6670", linewidth=0.8, linestyle=":")
    axes.set_xlim(0, 100)
    axes.set_ylim(-0.7, len(lines) - 0.3)
    axes.set_yticks(y, [f"{line.method} ({line.augment})" for line in lines])
    axes.set_xlabel("groups harmed, %")
    axes.set_title(f"{title}; harm against the source of the same kind, 95 % interval with groups as units")
    return figure
