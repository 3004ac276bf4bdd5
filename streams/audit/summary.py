"""Figures of a report, from joined windows: what was answered, how well, how fast, and what went wrong."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Generic, Literal, NotRequired, TypedDict, TypeVar

import numpy as np
import numpy.typing as npt

from acclimate.streams.audit.join import Joined

__all__ = [
    "HARM",
    "ByOutput",
    "ByRung",
    "Changed",
    "DeviceFigures",
    "DeviceShift",
    "Latency",
    "OfflineFigures",
    "Report",
    "latency_figures",
    "summarise",
    "throughput_windows_per_s",
]

# A device counts as harmed or helped from three points of accuracy on; less is noise at the usual sizes.
HARM = 0.03

BoolArray = npt.NDArray[np.bool_]
Value = TypeVar("Value")
ByRung = Mapping[str, int]  # windows by the name of a rung, most first; names are open


class ByOutput(TypedDict, Generic[Value]):
    """A figure of each output: the model as trained, adapted for every window, what was answered under the mode."""

    source: Value
    adapted: Value
    answered: Value


class Changed(TypedDict):
    """The devices that an output changed by `HARM` or more, against the source."""

    adapted: list[str]
    answered: list[str]


class DeviceShift(TypedDict):
    """Median and 95 % quantile of the shift magnitude of a device, and the share of windows above 1."""

    median: float
    p95: float
    share_above_1: float


class DeviceFigures(TypedDict):
    """One device; accuracies are 0 to 1."""

    device: str
    windows: int
    accuracy: ByOutput[float]
    shift: DeviceShift
    answered_by: ByRung


class Latency(TypedDict):
    """Milliseconds from input to output, the rate of publishing (None: as fast as possible), and how many windows."""

    p50: float
    p90: float
    p99: float
    max: int
    rate_windows_per_s: float | None
    windows: int


class OfflineFigures(TypedDict):
    """The comparison with a direct run; see `acclimate.streams.audit.offline.Offline`."""

    accuracy: ByOutput[float | None]
    equal: bool
    differing: int
    differing_columns: dict[str, int]
    bit_equal: bool


class Report(TypedDict):
    """The layout of ``report.json``; `acclimate.streams.audit.join.Joined` tells what is counted.

    Accuracies are None where nothing was answered. ``receipts`` hold the fields of
    `acclimate.streams.wire.messages.Receipt` and the number of windows that name it. Whoever makes the report adds what
    is not required.
    """

    windows: int
    lost: int
    lost_first: list[str]
    dead_letters: int
    dead_letter_reasons: dict[str, int]
    dead_windows: int
    foreign_letters: int
    duplicates: int
    conflicts: int
    reanswered: int
    unknown: int
    unreadable: int
    adaptable: bool
    accuracy: ByOutput[float | None]
    answered_by: ByRung
    adapted_by: ByRung
    worst_device: str | None
    harmed_devices: Changed
    helped_devices: Changed
    per_device: list[DeviceFigures]
    throughput_windows_per_s: float | None
    receipts: list[dict[str, Any]]
    latency_ms: NotRequired[Latency | None]
    offline: NotRequired[OfflineFigures]
    workers: NotRequired[int]


def summarise(joined: Joined) -> Report:
    """Return the part of a report that one collection gives."""
    devices = [_device(joined, name) for name in joined.devices]
    by_answered = sorted(devices, key=lambda device: device["accuracy"]["answered"])
    return {
        "windows": joined.windows,
        "lost": len(joined.lost),
        "lost_first": list(joined.lost[:20]),
        "dead_letters": sum(joined.dead_letters.values()),
        "dead_letter_reasons": dict(joined.dead_letters),
        "dead_windows": joined.dead_windows,
        "foreign_letters": joined.foreign_letters,
        "duplicates": joined.duplicates,
        "conflicts": joined.conflicts,
        "reanswered": joined.reanswered,
        "unknown": joined.unknown,
        "unreadable": joined.unreadable,
        "adaptable": joined.adaptable,
        "accuracy": {**_accuracy(joined, np.ones(len(joined), dtype=np.bool_))}
        if len(joined)
        else {"source": None, "adapted": None, "answered": None},
        "answered_by": _by_rung(joined.answered_by),
        "adapted_by": _by_rung(joined.adapted_by),
        "worst_device": by_answered[0]["device"] if by_answered else None,
        "harmed_devices": {
            "adapted": [device["device"] for device in devices if _change(device, "adapted") <= -HARM],
            "answered": [device["device"] for device in devices if _change(device, "answered") <= -HARM],
        },
        "helped_devices": {
            "adapted": [device["device"] for device in devices if _change(device, "adapted") >= HARM],
            "answered": [device["device"] for device in devices if _change(device, "answered") >= HARM],
        },
        "per_device": devices,
        "throughput_windows_per_s": throughput_windows_per_s(joined),
        "receipts": [receipt.model_dump() | {"windows": windows} for receipt, windows in joined.receipts],
    }


def throughput_windows_per_s(joined: Joined) -> float | None:
    """Return windows over the time from the first input to the last output, by the broker's clock; None without."""
    known = joined.arrived_ms >= 0
    if not known.any():
        return None
    milliseconds = int(joined.answered_ms[known].max() - joined.arrived_ms[known].min())
    return round(1000 * int(known.sum()) / max(1, milliseconds), 1)


def latency_figures(joined: Joined, rate_windows_per_s: float | None) -> Latency | None:
    """Return quantiles of the time from input to output, by the broker's clock; None without any input left.

    Args:
        joined: Windows of one collection.
        rate_windows_per_s: Rate at which they were published; None is as fast as possible, where the time is mostly
            spent in the queue.
    """
    latency = joined.latency_ms
    if not latency.size:
        return None
    p50, p90, p99 = np.quantile(latency, [0.5, 0.9, 0.99])
    return {
        "p50": round(float(p50), 1),
        "p90": round(float(p90), 1),
        "p99": round(float(p99), 1),
        "max": int(latency.max()),
        "rate_windows_per_s": None if rate_windows_per_s is None else round(rate_windows_per_s, 1),
        "windows": int(latency.size),
    }


def _device(joined: Joined, name: str) -> DeviceFigures:
    mine = joined.device == name
    magnitude = joined.magnitude[mine]
    return {
        "device": name,
        "windows": int(mine.sum()),
        "accuracy": _accuracy(joined, mine),
        "shift": {
            "median": round(float(np.median(magnitude)), 3),
            "p95": round(float(np.quantile(magnitude, 0.95)), 3),
            "share_above_1": round(float((magnitude > 1.0).mean()), 4),
        },
        "answered_by": _by_rung(joined.answered_by[mine]),
    }


def _accuracy(joined: Joined, mine: BoolArray) -> ByOutput[float]:
    def share(label: npt.NDArray[np.int64]) -> float:
        return round(float((label[mine] == joined.label[mine]).mean()), 5)

    return {
        "source": share(joined.source_label),
        "adapted": share(joined.adapted_label),
        "answered": share(joined.answered_label),
    }


def _by_rung(rungs: npt.NDArray[np.str_]) -> ByRung:
    return dict(Counter(rungs.tolist()).most_common())


def _change(device: DeviceFigures, output: Literal["adapted", "answered"]) -> float:
    return device["accuracy"][output] - device["accuracy"]["source"]
