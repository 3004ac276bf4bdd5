"""Measure the kind of shift of a device: magnitude and parts, levels and spreads of its channels, broken windows."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from acclimate.adaptation.data.dataset import Dataset
from acclimate.adaptation.engine.engine import Outputs
from acclimate.adaptation.guards.input_sanity import REASONS, InputSanity
from acclimate.adaptation.method import SourceContext
from acclimate.adaptation.model.source_units import SourceUnits

__all__ = ["Course", "Level", "Shift", "channel_levels", "course", "refused_share", "shift_figures"]

_POINTS = 60  # of a curve over a device's windows

Course = tuple[list[int], list[float]]  # places among a device's windows, and a value at each


@dataclass(frozen=True)
class Shift:
    """The shift of a device's windows.

    Attributes:
        median, p95: The median and the 95 % quantile of the magnitude.
        above: The share of windows whose magnitude is above 1, 0 to 1.
        mean_part, variance_part: The medians of the magnitude's parts.
    """

    median: float
    p95: float
    above: float
    mean_part: float
    variance_part: float


@dataclass(frozen=True)
class Level:
    """A channel of a device against the source.

    Attributes:
        channel: The name of the channel.
        level: The difference of the means, in source standard deviations.
        spread: The ratio of the standard deviations.
    """

    channel: str
    level: float
    spread: float


def shift_figures(outputs: Outputs) -> Shift:
    """Sum up the shift of a device's windows."""
    magnitude = outputs.magnitude
    return Shift(
        median=float(np.median(magnitude)),
        p95=float(np.quantile(magnitude, 0.95)),
        above=float((magnitude > 1.0).mean()),
        mean_part=float(np.median(outputs.mean_part)),
        variance_part=float(np.median(outputs.variance_part)),
    )


def course(values: NDArray[np.float32]) -> Course:
    """Return places and medians of at most `_POINTS` consecutive parts."""
    parts = np.array_split(values, min(_POINTS, len(values)))
    ends = np.cumsum([len(part) for part in parts])
    return ends.tolist(), [float(np.median(part)) for part in parts]


def channel_levels(context: SourceContext, dataset: Dataset, windows: NDArray[np.float32]) -> tuple[Level, ...]:
    """Compare each channel's level and spread with the source's, in source standard deviations."""
    units = SourceUnits(context)
    source = _moments(units, dataset.source.windows)
    own = _moments(units, windows)
    return tuple(
        Level(
            channel=name,
            level=own[0][channel] - source[0][channel],
            spread=own[1][channel] / max(source[1][channel], 1e-6),
        )
        for channel, name in enumerate(dataset.channel_names)
    )


def _moments(units: SourceUnits, windows: NDArray[np.float32]) -> tuple[list[float], list[float]]:
    scaled = units.to_units(torch.from_numpy(windows)).double()
    return scaled.mean(dim=(0, 2)).tolist(), scaled.std(dim=(0, 2), correction=0).tolist()


def refused_share(context: SourceContext, windows: NDArray[np.float32]) -> dict[str, float]:
    """Return the share of windows that look like a broken sensor, by reason; reasons without any are left out."""
    found = InputSanity(context).check(torch.from_numpy(windows)).refused.double().mean(dim=0).tolist()
    return {reason: share for reason, share in zip(REASONS, found, strict=True) if share > 0}
