"""Pictures of every corruption at every severity on a real window: ``python -m benchmarks.corruptions``.

Draws ``docs/corruptions.svg`` from one window of walking, 2 s of three axes, of the chest-worn accelerometer in
``../shared/data/chest_har.npz`` (CC BY 4.0); without that file from a window of the simulated fleet. Of the channels
the one is drawn that severity 5 changes most. The same data give the same bytes.
"""

import argparse
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from acclimate.adaptation.data.corruptions import (
    CORRUPTIONS,
    EVALUATION_MIXTURES,
    KINDS,
    SEVERITIES,
    TUNING_MIXTURES,
    applicable,
    centre_and_scale,
    corrupt,
)
from acclimate.adaptation.data.load import load
from acclimate.adaptation.data.simulate import simulate_fleet

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
MIXTURES = (TUNING_MIXTURES[0], EVALUATION_MIXTURES[0])
WALKING = 2
STREAM = 1000  # windows of the stream whose last one is drawn, so that slow drift is seen at its end
SEED = 4

CLEAN, INK, MUTED = "#b3bac1", "#1c2024", "#5c6670"
HALVES = {True: "#0072b2", False: "#d55e00"}  # tuning, evaluation; readable for the colour-blind
STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "text.color": INK,
    "path.simplify": False,
}


@dataclass(frozen=True, eq=False)
class Example:
    """A window (1, C, L) to be drawn, and what its channels are like."""

    caption: str
    window: NDArray[np.float32]
    centre: NDArray[np.float64]
    scale: NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw every corruption at every severity.")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with chest_har.npz")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "corruptions.svg")
    arguments = parser.parse_args()
    example = _example(arguments.data)
    arguments.out.write_text(draw(example))
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1000:.0f} kB, {example.caption}")


def draw(example: Example, kinds: Sequence[str] = (*CORRUPTIONS, *MIXTURES)) -> str:
    """Give the picture as SVG text: a row per kind that applies, a column per severity."""
    _, channels, length = example.window.shape
    rows = [kind for kind in kinds if applicable(kind, channels, length)]
    with mpl.rc_context({**STYLE, "svg.hashsalt": "corruptions", "svg.id": None}):
        figure = Figure(figsize=(9.2, 0.6 + 0.72 * len(rows)))
        grid = figure.subplots(len(rows), len(SEVERITIES), squeeze=False)
        figure.subplots_adjust(left=0.2, right=0.99, bottom=0.005, top=1 - 0.55 / (0.6 + 0.72 * len(rows)), hspace=0.12)
        for line, kind in zip(grid, rows, strict=True):
            _row(list(line), kind, example)
        for axes, severity in zip(grid[0], SEVERITIES, strict=True):
            axes.set_title(f"severity {severity}", fontsize=8.5, color=MUTED)
        figure.text(0.005, 0.997, example.caption + "; grey: as recorded.", va="top", color=MUTED)
        figure.text(0.745, 0.997, "tuning half", va="top", color=HALVES[True], weight="bold")
        figure.text(0.845, 0.997, "evaluation half", va="top", color=HALVES[False], weight="bold")
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return re.sub(r' d="[^"]*"', _shortened, text.getvalue())


def _row(line: list[Axes], kind: str, example: Example) -> None:
    single = KINDS.get(kind)
    tuning = kind in TUNING_MIXTURES if single is None else single.tuning
    clean = _in_units(example.window, example)
    corrupted = [
        _in_units(
            corrupt(example.window, kind, severity, example.scale, SEED, STREAM - 1, STREAM, centre=example.centre),
            example,
        )
        for severity in SEVERITIES
    ]  # (C, L) each
    channel = int(((corrupted[-1] - clean) ** 2).mean(axis=1).argmax())
    drawn = [clean[channel], *(values[channel] for values in corrupted)]
    low, high = min(v.min() for v in drawn), max(v.max() for v in drawn)
    margin = 0.06 * (high - low)
    for column, (axes, values) in enumerate(zip(line, drawn[1:], strict=True)):
        axes.plot(drawn[0], color=CLEAN, linewidth=0.9)
        axes.plot(values, color=HALVES[tuning], linewidth=0.9)
        axes.set_ylim(low - 5 * margin, high + margin)  # the size stands below
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_frame_on(False)
        if single is not None:
            axes.text(1.0, -0.02, f"{single.sizes[column]:.3g}", transform=axes.transAxes, ha="right", color=MUTED)
    name = kind if single is not None else kind.replace("+", " +\n")
    unit = single.unit.replace(", ", ",\n").replace(" (", "\n(").replace(" at the", "\nat the") if single else ""
    lines = name.count("\n") + 1
    line[0].text(-1.42, 0.95, name, transform=line[0].transAxes, va="top", weight="bold", color=HALVES[tuning])
    line[0].text(-1.42, 0.95 - 0.27 * lines, unit, transform=line[0].transAxes, va="top", color=MUTED, fontsize=7.5)


def _shortened(path: re.Match[str]) -> str:
    """Round a path to tenths of a point, which is finer than a screen; the file halves."""
    return re.sub(r"\d+\.\d\d+", lambda number: f"{float(number[0]):.1f}", path[0]).replace(" \n", " ")


def _in_units(windows: NDArray[np.float32], example: Example) -> NDArray[np.float64]:
    """Give the only window (C, L) about its centre in standard deviations."""
    units: NDArray[np.float64] = (windows[0] - example.centre[:, None]) / example.scale[:, None]
    return units


def _example(folder: Path) -> Example:
    path = folder / "chest_har.npz"
    if path.exists():
        source = load(path, label="y4", source="device=1-5").source
        picked = np.flatnonzero(source.labels == WALKING)[100]
        caption = "Walking, chest-worn accelerometer, 2 s at 52 Hz"
    else:
        source = simulate_fleet(0).source
        picked, caption = np.int64(100), "A machine of the simulated fleet"
    centre, scale = centre_and_scale(source.windows)
    return Example(caption, source.windows[picked : picked + 1], centre, scale)


if __name__ == "__main__":
    main()
