"""Plots of a report as SVG text, readable when printed in grey as well.

Colours are drawn as marks and replaced at the end: by CSS variables inside a page, which has a light and a dark dress,
or by fixed colours in a picture of its own. The three series differ in shape and line style, not in colour alone; the
hues are those of Okabe and Ito, which colour-blind readers can tell apart.
"""

import itertools
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from acclimate.streams.audit.join import Joined
from acclimate.streams.audit.summary import DeviceFigures, Report
from acclimate.streams.drawing import page_element, plot_style, svg_text

__all__ = ["DEVICES_MAX", "accuracy_over_time", "latency", "overview", "shift_over_time"]

DEVICES_MAX = 30
_STRETCHES_MAX = 60
_POINTS = 120

# Stand-ins for colours, see `_svg`; near-black so that a forgotten one is seen.
_INK, _MUTED, _GRID, _BAND = "#010101", "#020202", "#030303", "#040404"
_SERIES = {"source": "#050505", "adapted": "#060606", "answered": "#070707"}
_VARIABLES = {
    _INK: "ink",
    _MUTED: "muted",
    _GRID: "line",
    _BAND: "band",
    _SERIES["source"]: "source",
    _SERIES["adapted"]: "adapted",
    _SERIES["answered"]: "answered",
}
_FIXED = {
    _INK: "#1c2024",
    _MUTED: "#5c6670",
    _GRID: "#d9dee3",
    _BAND: "#eef1f4",
    _SERIES["source"]: "#5c6670",
    _SERIES["adapted"]: "#d55e00",
    _SERIES["answered"]: "#0072b2",
}
_NAMES = {"source": "as trained", "adapted": "adapted everywhere", "answered": "answered"}
_MARKERS = {"source": "o", "adapted": "D", "answered": "o"}
_LINES = {"source": "--", "adapted": ":", "answered": "-"}
_STYLE = plot_style(_INK, _MUTED, _GRID)


def overview(report: Report, standalone: bool = False) -> str:
    """Draw one row per device: accuracy under the three ways to answer on the left, its shift on the right.

    Args:
        report: As `acclimate.streams.audit.summary.summarise` gives it.
        standalone: Make a file of its own with fixed colours on white, instead of a part of a page.
    """
    devices = _shown(report["per_device"])
    height = 1.15 + 0.27 * max(3, len(devices))
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9.2, height), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3, 2])
        y = np.arange(len(devices))[::-1]
        for axes in (left, right):
            axes.grid(axis="y", visible=False)
            axes.tick_params(length=0)
        _accuracy_rows(left, devices, y, report["adaptable"])
        _shift_rows(right, devices, y)
        left.set_yticks(y, [_short(device["device"]) for device in devices])
        left.set_ylim(-0.7, len(devices) - 0.3)
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=3, handletextpad=0.3, columnspacing=1.4)
        return _svg(figure, "overview", "Accuracy and shift of each device", standalone)


def shift_over_time(joined: Joined) -> str:
    """Draw each device's shift magnitude over its windows, with bands where the true class is another one."""
    names = joined.devices[:DEVICES_MAX]
    columns = 3 if len(names) > 2 else max(1, len(names))
    rows = -(-len(names) // columns)
    top = max(1.5, float(np.quantile(joined.magnitude, 0.999)))
    bottom = min(0.5, max(1e-3, float(np.quantile(joined.magnitude, 0.01))))
    with mpl.rc_context(_STYLE | {"font.size": 8.5, "axes.titlesize": 8.5}):
        figure = Figure(figsize=(9.2, 0.5 + 1.35 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for axes in grid.flat[len(names) :]:
            axes.set_visible(False)
        for axes, name in zip(grid.flat, names, strict=False):
            mine = joined.device == name
            magnitude, truth = joined.magnitude[mine], joined.label[mine]
            _bands(axes, truth)
            centre, low, middle, high = _binned(magnitude)
            axes.fill_between(centre, low, high, color=_SERIES["answered"], alpha=0.22, linewidth=0)
            axes.plot(centre, middle, color=_SERIES["answered"], linewidth=1.2)
            axes.axhline(1.0, color=_INK, linewidth=0.9, linestyle=(0, (4, 2)))
            axes.set_yscale("log")
            axes.set_ylim(bottom * 0.8, top * 1.25)
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
            axes.set_xlim(0, len(magnitude))
            axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
            axes.tick_params(length=0, which="both")
            axes.grid(axis="x", visible=False)
            axes.set_title(_short(name))
        figure.supxlabel("window of the device, in time order", fontsize=8.5, color=_MUTED)
        figure.supylabel("shift magnitude (log)", fontsize=8.5, color=_MUTED)
        return _svg(figure, "shift", "Shift magnitude over time for each device")


def accuracy_over_time(joined: Joined, bins: int = 50) -> str:
    """Draw the fleet's accuracy while the recording goes by; each device counts by its windows."""
    progress = np.empty(len(joined), dtype=np.float64)
    for name in joined.devices:
        mine = np.flatnonzero(joined.device == name)
        progress[mine] = (np.arange(mine.size) + 0.5) / mine.size
    bins = min(bins, max(2, len(joined) // 40))
    place = np.minimum((progress * bins).astype(np.int64), bins - 1)
    count = np.maximum(1, np.bincount(place, minlength=bins))
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9.2, 2.7), layout="constrained")
        axes = figure.subplots()
        x = (np.arange(bins) + 0.5) / bins * 100
        for name, predicted in _predicted(joined).items():
            right = np.bincount(place, weights=predicted == joined.label, minlength=bins) / count * 100
            axes.plot(x, right, _LINES[name], color=_SERIES[name], linewidth=1.8, label=_NAMES[name])
        axes.set_ylim(0, 102)
        axes.set_xlim(0, 100)
        axes.set_xlabel("progress of the recording, %")
        axes.set_ylabel("accuracy, %")
        axes.tick_params(length=0)
        figure.legend(loc="outside upper left", ncols=3, columnspacing=1.4)
        return _svg(figure, "running", "Accuracy of the fleet over time")


def latency(joined: Joined) -> str:
    """Draw the share of windows answered within a time, with the median and the 99th percentile marked."""
    values = np.sort(np.maximum(1, joined.latency_ms))
    shares = np.arange(1, values.size + 1) / values.size * 100
    last = np.append(np.flatnonzero(np.diff(values)), values.size - 1)  # the times are whole milliseconds
    p50, p99 = np.quantile(values, [0.5, 0.99])
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9.2, 2.5), layout="constrained")
        axes = figure.subplots()
        axes.step(values[last], shares[last], where="post", color=_SERIES["answered"], linewidth=1.8)
        for share, value, text in ((50, p50, "half"), (99, p99, "99 %")):
            axes.plot([value], [share], "o", color=_INK, markersize=4.5)
            axes.annotate(
                f"{text} within {value:.0f} ms", (value, share), (8, -13), textcoords="offset points", fontsize=9
            )
        # right of the 99th percentile a fifth of the width stays free for its text, which no curve can cross there
        left = 0.9 * values[0]
        axes.set_xlim(left, max(1.15 * values[-1], left * (p99 / left) ** 1.25))
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_ylim(0, 104)
        axes.set_xlabel("milliseconds from the broker's receipt of the window to its receipt of the answer (log)")
        axes.set_ylabel("windows answered, %")
        axes.tick_params(length=0, which="both")
        return _svg(figure, "latency", "Time from window to answer")


def _accuracy_rows(axes: Axes, devices: Sequence[DeviceFigures], y: npt.NDArray[np.int64], adaptable: bool) -> None:
    values = {
        "source": [100 * device["accuracy"]["source"] for device in devices],
        "adapted": [100 * device["accuracy"]["adapted"] for device in devices],
        "answered": [100 * device["accuracy"]["answered"] for device in devices],
    }
    axes.hlines(y, values["source"], values["answered"], color=_SERIES["answered"], linewidth=2.2, alpha=0.45)
    for name in ("source", "adapted", "answered") if adaptable else ("source",):
        hollow = name != "answered"
        axes.plot(
            values[name],
            y,
            _MARKERS[name],
            color=_SERIES[name],
            markerfacecolor="none" if hollow else _SERIES[name],
            markeredgewidth=1.5,
            markersize={"source": 7.5, "adapted": 7.0, "answered": 4.5}[name],  # all three are seen where they meet
            label=_NAMES[name],
        )
    axes.set_xlim(-2, 102)
    axes.set_xlabel("accuracy, %")


def _shift_rows(axes: Axes, devices: Sequence[DeviceFigures], y: npt.NDArray[np.int64]) -> None:
    median = np.array([max(1e-3, device["shift"]["median"]) for device in devices])
    p95 = np.array([max(1e-3, device["shift"]["p95"]) for device in devices])
    axes.hlines(y, median, p95, color=_MUTED, linewidth=2.2, alpha=0.5)
    axes.plot(median, y, "|", color=_INK, markersize=9, markeredgewidth=2)
    axes.axvline(1.0, color=_INK, linewidth=0.9, linestyle=(0, (4, 2)))
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    axes.set_xlim(min(0.3, median.min(initial=1.0) * 0.8), max(3.0, p95.max(initial=1.0) * 1.3))
    axes.tick_params(which="both", length=0)
    axes.set_xlabel("shift magnitude: median to 95th percentile (log)")


def _predicted(joined: Joined) -> dict[str, npt.NDArray[np.int64]]:
    if not joined.adaptable:
        return {"source": joined.source_label}
    return {"source": joined.source_label, "adapted": joined.adapted_label, "answered": joined.answered_label}


def _bands(axes: Axes, truth: npt.NDArray[np.int64]) -> None:
    """Shade every other stretch of one true class; leave a stream of many short stretches alone."""
    edges = np.concatenate([[0], np.flatnonzero(np.diff(truth)) + 1, [truth.size]])
    if edges.size - 1 > _STRETCHES_MAX:
        return
    for start, stop in list(itertools.pairwise(edges))[1::2]:
        axes.axvspan(start, stop, color=_BAND, linewidth=0, zorder=0)


def _binned(values: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float64], ...]:
    """Return bin centres and the 10th, 50th and 90th percentile of each of at most `_POINTS` bins."""
    edges = np.unique(np.linspace(0, values.size, min(_POINTS, values.size) + 1).astype(np.int64))
    parts = [values[start:stop] for start, stop in itertools.pairwise(edges)]
    quantiles = np.array([np.quantile(part, [0.1, 0.5, 0.9]) for part in parts], dtype=np.float64)
    return ((edges[:-1] + edges[1:]) / 2, *quantiles.T)


def _shown(devices: Sequence[DeviceFigures]) -> list[DeviceFigures]:
    """Return at most `DEVICES_MAX` devices, best first as trained; of more, those that the model serves worst."""
    ordered = sorted(devices, key=lambda device: -device["accuracy"]["source"])
    return ordered[-DEVICES_MAX:]


def _short(name: str) -> str:
    # matplotlib reads $ as mathematics; device ids have none, but figures must not depend on that
    text = name if len(name) <= 24 else name[:23] + "…"
    return text.replace("$", r"\$")


def _svg(figure: Figure, name: str, label: str, standalone: bool = False) -> str:
    """Return the drawing, either as an element of a page or as a file."""
    text = svg_text(figure, name, transparent=not standalone)
    for mark, colour in (_FIXED if standalone else _VARIABLES).items():
        text = text.replace(mark, colour if standalone else f"var(--{colour})")
    return text if standalone else page_element(text, label)
