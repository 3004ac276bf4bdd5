"""Measure the kind of shift of a device: magnitude and parts, levels and spreads of its channels, broken windows."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from adaptation.data.dataset import Dataset
from adaptation.engine.engine import Outputs
from adaptation.guards.input_sanity import REASONS, InputSanity
from adaptation.method import SourceContext
from adaptation.model.source_units import SourceUnits

__all__ = ["channel_levels", "course", "refused_share", "shift_figures"]

_POINTS = 60  # of a curve over a device's windows


def shift_figures(outputs: Outputs) -> dict[str, float]:
    """Sum up the shift of a device's windows: magnitude, share of it above 1, and the medians of its parts."""
    magnitude = outputs.magnitude
    return {
        "median": float(np.median(magnitude)),
        "p95": float(np.quantile(magnitude, 0.95)),
        "above": float((magnitude > 1.0).mean()),
        "mean_part": float(np.median(outputs.mean_part)),
        "variance_part": float(np.median(outputs.variance_part)),
    }


def course(values: NDArray[np.float32]) -> list[list[float]]:
    """Return places and medians of at most `_POINTS` consecutive parts."""
    parts = np.array_split(values, min(_POINTS, len(values)))
    ends = np.cumsum([len(part) for part in parts])
    return [ends.tolist(), [float(np.median(part)) for part in parts]]


def channel_levels(context: SourceContext, dataset: Dataset, windows: NDArray[np.float32]) -> list[dict[str, Any]]:
    """Compare each channel's level and spread with the source's, in source standard deviations."""
    units = SourceUnits(context)
    source = _moments(units, dataset.source.windows)
    own = _moments(units, windows)
    return [
        {
            "channel": name,
            "level": own[0][channel] - source[0][channel],
            "spread": own[1][channel] / max(source[1][channel], 1e-6),
        }
        for channel, name in enumerate(dataset.channel_names)
    ]


def _moments(units: SourceUnits, windows: NDArray[np.float32]) -> tuple[list[float], list[float]]:
    scaled = units.to_units(torch.from_numpy(windows)).double()
    return scaled.mean(dim=(0, 2)).tolist(), scaled.std(dim=(0, 2), correction=0).tolist()


def refused_share(context: SourceContext, windows: NDArray[np.float32]) -> dict[str, float]:
    """Return the share of windows that look like a broken sensor, by reason; reasons without any are left out."""
    found = InputSanity(context).check(torch.from_numpy(windows)).refused.double().mean(dim=0).tolist()
    return {reason: share for reason, share in zip(REASONS, found, strict=True) if share > 0}
