"""Draw a pilot as SVG text, dark on light, for a page that asks nothing of the network.

Hues are those of Okabe and Ito; what matters differs in shape as well, so that it survives a grey printer.
"""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from acclimate.streams.drawing import page_element, plot_style, svg_text
from acclimate.streams.lab.pilot.economics import LabelPrice, Yearly
from acclimate.streams.lab.pilot.findings import Findings, SourceDevice, TargetDevice
from acclimate.streams.lab.pilot.gains import RUNGS, DeviceScore, Gain
from acclimate.streams.lab.pilot.shifts import Course

__all__ = ["DEVICES_MAX", "PANELS_MAX", "gains", "over_time", "rung_words", "shift_per_device", "value"]

DEVICES_MAX = 40
PANELS_MAX = 12

_INK, _MUTED, _GRID = "#1c2024", "#5c6670", "#d9dee3"
_BLUE, _ORANGE, _GREEN, _PALE = "#0072b2", "#c75200", "#00795b", "#9aa5af"
_FLOOR = 1e-2  # of a logarithmic axis
_LABELS_MAX = 10_000
_STYLE = plot_style(_INK, _MUTED, _GRID)


def shift_per_device(findings: Findings) -> str:
    """Draw each device's shift magnitude with its parts, and the parts of the gate over their limits."""
    devices = sorted(findings.devices, key=lambda device: -device.shift.median)[:DEVICES_MAX]
    own = findings.source_devices[:DEVICES_MAX]
    rows: list[SourceDevice | TargetDevice] = [*devices, *own]
    y = np.arange(len(rows))[::-1]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9.2, 1.3 + 0.27 * max(4, len(rows))), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3, 2])
        for place, row in zip(y, rows, strict=True):
            shift, colour = row.shift, _INK if isinstance(row, TargetDevice) else _PALE
            ends = [max(_FLOOR, shift.median), max(_FLOOR, shift.p95)]
            left.plot(ends, [place, place], color=colour, alpha=0.35, linewidth=3, solid_capstyle="butt")
            left.plot(ends[0], place, "|", color=colour, markersize=11, markeredgewidth=2)
            left.plot(max(_FLOOR, shift.mean_part), place, "o", color=_BLUE, markersize=6, markerfacecolor="none")
            if findings.adaptable:
                left.plot(
                    max(_FLOOR, shift.variance_part), place, "D", color=_ORANGE, markersize=5, markerfacecolor="none"
                )
        for place, row in zip(y, devices, strict=False):
            gate = row.gate
            right.plot([_FLOOR, max(_FLOOR, gate.largest)], [place, place], color=_INK, alpha=0.2, linewidth=3)
            right.plot(max(_FLOOR, gate.mean), place, "o", color=_BLUE, markersize=6)
            right.plot(max(_FLOOR, gate.variance), place, "D", color=_ORANGE, markersize=5)
        left_out = {score.device: score.gate for score in findings.policy.table}
        for place, row in zip(y[len(devices) :], own, strict=True):
            if row.device in left_out:
                right.plot(max(_FLOOR, left_out[row.device]), place, "s", color=_PALE, markersize=5)
        for axes, text in (
            (left, "shift magnitude of single windows (log)"),
            (right, "gate distance over its limit (log)"),
        ):
            axes.axvline(1.0, color=_INK, linewidth=0.9, linestyle=(0, (4, 2)))
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g}"))
            axes.xaxis.set_minor_formatter(FuncFormatter(lambda number, _: ""))
            axes.grid(axis="y", visible=False)
            axes.tick_params(length=0, which="both")
            axes.set_xlabel(text)
        right.set_xlim(left=_FLOOR)
        left.set_yticks(
            y, [_short(row.device + ("" if isinstance(row, TargetDevice) else " (source)")) for row in rows]
        )
        left.set_ylim(-0.7, len(rows) - 0.3)
        _legend(
            figure,
            left,
            [
                ("|", _INK, "magnitude, median to 95 %"),
                ("o", _BLUE, "mean part (levels)"),
                ("D", _ORANGE, "variance part (spreads)"),
                *([("s", _PALE, "source device, left out")] if left_out else []),
            ],
        )
        return _svg(figure, "shift", "Shift magnitude and gate distance of each device")


def over_time(findings: Findings) -> str:
    """Draw magnitude and gate of each device over its windows, both against their limit of 1."""
    devices = sorted(findings.devices, key=lambda device: -device.gate.largest)[:PANELS_MAX]
    columns = min(3, len(devices))
    lines = -(-len(devices) // columns)
    with mpl.rc_context(_STYLE | {"font.size": 8.5, "axes.titlesize": 8.5}):
        figure = Figure(figsize=(9.2, 0.75 + 1.4 * lines), layout="constrained")
        grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
        for axes in grid.flat[len(devices) :]:
            axes.set_visible(False)
        for axes, device in zip(grid.flat, devices, strict=False):
            axes.plot(*_floored(device.magnitude_curve), color=_PALE, linewidth=1.2, label="magnitude, median")
            axes.plot(*_floored(device.gate.curve), color=_BLUE, linewidth=1.7, label="gate")
            axes.axhline(1.0, color=_INK, linewidth=0.9, linestyle=(0, (4, 2)))
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g}"))
            axes.yaxis.set_minor_formatter(FuncFormatter(lambda number, _: ""))
            axes.set_xlim(0, device.windows)
            axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
            axes.tick_params(length=0, which="both")
            axes.set_title(_short(device.device))
        figure.supxlabel("window of the device, in time order", fontsize=8.5, color=_MUTED)
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=2)
        return _svg(figure, "time", "Magnitude and gate of each device over time")


def gains(findings: Findings) -> str:
    """Draw what each rung changes on each device: measured on the target, and on source devices that were left out."""
    names = ["robust", *RUNGS] if findings.recipe != "none" else list(RUNGS)
    y = np.arange(len(names))[::-1].astype(np.float64)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9.2, 1.2 + 0.62 * len(names)), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0.0, color=_INK, linewidth=0.9)
        for place, name in zip(y, names, strict=True):
            if findings.measured is not None and (gain := findings.measured.get(name)) is not None:
                scores = [score for device in findings.devices if (score := device.score(name)) is not None]
                _changes(axes, place + 0.16, scores, gain, filled=True)
            if name in findings.expected:
                _changes(axes, place - 0.16, findings.expected_devices[name], findings.expected[name], filled=False)
        left, right = axes.get_xlim()
        axes.set_xlim(min(left, -1.0), max(right, 1.0))  # a tenth of a point must not fill the page
        axes.set_yticks(y, [rung_words(name) for name in names])
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.tick_params(length=0)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("change in accuracy, points")
        entries = [("o", _BLUE, "a target device"), ("v", _ORANGE, "harmed (its whole 95 % interval lies below 0)")]
        if findings.measured is None:
            entries = entries[1:]
        by = "left-out source device" if findings.expected_by.startswith("left") else "simulated shift"
        _legend(figure, axes, [*entries, ("o", _PALE, f"a {by}"), ("|", _INK, "mean and its 95 % interval")])
        return _svg(figure, "gains", "Change in accuracy of each rung on each device")


def value(years: Sequence[Yearly], breaks: Sequence[LabelPrice], gains_measured: Mapping[str, float]) -> str:
    """Draw what a year nets per rung on the left, and the gain from which labels pay on the right.

    Args:
        years: The years of the rungs.
        breaks: The prices that `acclimate.streams.lab.pilot.economics.label_break_even` gives.
        gains_measured: The gains of rungs in points, by words, to compare labels with.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9.2, 1.1 + 0.42 * max(4, len(years))), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[3, 2], gridspec_kw={"wspace": 0.08})
        y = np.arange(len(years))[::-1]
        left.axvline(0.0, color=_INK, linewidth=0.9)
        for place, year in zip(y, years, strict=True):
            likely, low, high = year.net
            left.barh(place, likely, height=0.5, color=_GREEN if likely >= 0 else _ORANGE, alpha=0.85)
            if low is not None and high is not None:
                left.plot([low, high], [place, place], color=_INK, linewidth=1.4)
        left.set_yticks(y, [rung_words(year.rung) for year in years])
        left.set_ylim(-0.7, len(years) - 0.3)
        left.set_xlabel("net per year, in the currency of the costs")
        left.xaxis.set_major_locator(MaxNLocator(5))
        left.xaxis.set_major_formatter(FuncFormatter(_amount))
        left.grid(axis="y", visible=False)
        _label_line(right, breaks, gains_measured)
        right.set_xlabel("labels per device and year (log)")
        right.set_ylabel("pay from a gain of, points (log)")
        for axes in (left, right):
            axes.tick_params(length=0, which="both")
        return _svg(figure, "value", "Net value per year, and the gain from which labels pay")


def _label_line(axes: Axes, breaks: Sequence[LabelPrice], gains_measured: Mapping[str, float]) -> None:
    """Draw the gain from which labels pay, up to all there is to gain; it grows in proportion to their number."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(1, _LABELS_MAX)
    each = breaks[0].break_even_gain
    if not each:
        axes.set_ylim(1, 100)
        axes.text(0.5, 0.5, "errors or labels cost nothing", transform=axes.transAxes, ha="center", color=_MUTED)
        return
    count = np.logspace(0, np.log10(_LABELS_MAX), 100)
    points = 100 * each * count / breaks[0].labels_per_device
    lowest = min([100.0, float(points[0]), *(gain for gain in gains_measured.values() if gain > 0)])
    axes.set_ylim(max(1e-3, lowest / 3), 100)
    axes.plot(count, points, "-", color=_BLUE, linewidth=1.8)
    for words, gain in gains_measured.items():
        if gain > 0:
            axes.axhline(gain, color=_PALE, linewidth=1.2)
            axes.annotate(
                words, (_LABELS_MAX, gain), (0, -9), textcoords="offset points", ha="right", fontsize=8, color=_MUTED
            )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g}"))
        axis.set_minor_formatter(FuncFormatter(lambda number, _: ""))


def rung_words(name: str) -> str:
    """Name a rung for people."""
    return {"robust": "robust source, against plain", "source": "source"}.get(name) or RUNGS[name]


def _changes(axes: Axes, place: float, scores: Sequence[DeviceScore], gain: Gain, *, filled: bool) -> None:
    colour = _BLUE if filled else _PALE
    for score in scores:
        harmed = score.harmed
        axes.plot(
            100 * score.change,
            place,
            "v" if harmed else "o",
            color=_ORANGE if harmed else colour,
            markerfacecolor=None if filled else "none",
            markersize=6,
            alpha=0.8,
            clip_on=False,
        )
    if gain.low is not None and gain.high is not None:
        axes.plot([100 * gain.low, 100 * gain.high], [place, place], color=_INK, linewidth=1.2)
    axes.plot(100 * gain.mean, place, "|", color=_INK, markersize=13, markeredgewidth=2)


def _floored(curve: Course) -> Course:
    return curve[0], [max(_FLOOR, number) for number in curve[1]]


def _legend(figure: Figure, axes: Axes, entries: Sequence[tuple[str, str, str]]) -> None:
    handles = [
        axes.plot([], [], marker, color=colour, markersize=7, markeredgewidth=1.8, label=label)[0]
        for marker, colour, label in entries
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(entries), handletextpad=0.3, columnspacing=1.4)


def _amount(number: float, _: object = None) -> str:
    """Write an amount of money with at most four digits.

    >>> [_amount(number) for number in (0, -1500, 2_500_000, 0.25)]
    ['0', '−1.5k', '2.5M', '0.25']
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{letter}".replace("-", "\N{MINUS SIGN}")
    return f"{number:.3g}".replace("-", "\N{MINUS SIGN}")


def _short(name: str) -> str:
    text = name if len(name) <= 26 else name[:25] + "…"
    return text.replace("$", r"\$")  # matplotlib reads $ as mathematics


def _svg(figure: Figure, name: str, label: str) -> str:
    return page_element(svg_text(figure, name, transparent=True), label)
