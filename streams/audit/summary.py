"""Figures of a report, from joined windows: what was answered, how well, how fast, and what went wrong."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from streams.audit.join import Joined

__all__ = ["HARM", "latency_figures", "summarise", "throughput_windows_per_s"]

# A device counts as harmed or helped from three points of accuracy on; less is noise at the usual sizes.
HARM = 0.03

BoolArray = npt.NDArray[np.bool_]
Json = dict[str, Any]


def summarise(joined: Joined) -> Json:
    """Return the part of a report that one collection gives.

    ``adapted`` is LeanTTA's own output everywhere, ``answered`` what the workers answered under their mode.
    """
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
        "accuracy": _accuracy(joined, np.ones(len(joined), dtype=np.bool_)),
        "answered_by": _answered_by(joined.by_leantta),
        "worst_device": by_answered[0]["device"] if by_answered else None,
        "harmed_devices": {
            output: [device["device"] for device in devices if _change(device, output) <= -HARM]
            for output in ("adapted", "answered")
        },
        "helped_devices": {
            output: [device["device"] for device in devices if _change(device, output) >= HARM]
            for output in ("adapted", "answered")
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


def latency_figures(joined: Joined, rate_windows_per_s: float | None) -> Json | None:
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


def _device(joined: Joined, name: str) -> Json:
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
        "answered_by": _answered_by(joined.by_leantta[mine]),
    }


def _accuracy(joined: Joined, mine: BoolArray) -> dict[str, float | None]:
    labels: Mapping[str, npt.NDArray[np.int64]] = {
        "source": joined.source_label,
        "adapted": joined.adapted_label,
        "answered": joined.answered_label,
    }
    truth = joined.label[mine]
    return {
        name: round(float((label[mine] == truth).mean()), 5) if truth.size else None for name, label in labels.items()
    }


def _answered_by(by_leantta: BoolArray) -> dict[str, int]:
    return {"source": int((~by_leantta).sum()), "leantta": int(by_leantta.sum())}


def _change(device: Json, output: str) -> float:
    change: float = device["accuracy"][output] - device["accuracy"]["source"]
    return change
