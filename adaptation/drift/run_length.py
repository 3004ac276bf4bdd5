"""Measure a detector on resampled streams: how often it cries wolf, and how long it takes to see a step.

The streams are those of `bootstrap.resample`; give another generator than the one the threshold was fitted with, or the
figures confirm themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from acclimate.adaptation.drift.bootstrap import BLOCK, resample, residuals_of
from acclimate.adaptation.drift.cusum import Cusum
from acclimate.adaptation.errors import ConfigError

__all__ = ["FalseAlarms", "StepUnit", "detection_delays", "false_alarms"]

StepUnit = Literal["residual", "score"]
_WARM_UP = 200

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class FalseAlarms:
    """The counts of one run.

    Attributes:
        alarms: The alarms on streams without a change.
        windows: Looked at, over all replicates.
    """

    alarms: int
    windows: int

    @property
    def per_10_000(self) -> float:
        """Alarms per 10,000 windows."""
        return 10_000 * self.alarms / self.windows


def false_alarms(
    detector: Cusum,
    streams: Sequence[Float64],
    rng: np.random.Generator,
    *,
    windows: int = 10_000,
    replicates: int = 500,
    block: int = BLOCK,
) -> FalseAlarms:
    """Run the detector, which starts anew after each alarm, over resampled streams.

    Args:
        detector: The detector to judge.
        streams: Scores without a change, one array (n,) per device in stream order.
        rng: The generator of the bootstrap.
        windows: Length of each replicate.
        replicates: Streams; the count has a relative error of one over the root of the alarms.
        block: The length of the bootstrap's blocks, in windows.

    Raises:
        ConfigError: A number is below 1.
        DataError: No score is given, or one is not finite.
    """
    if windows < 1:
        raise ConfigError(f"windows: expected at least 1, got {windows}")
    upper, lower = np.zeros(replicates), np.zeros(replicates)
    alarms = done = 0
    for chunk in residuals_of(detector.reference, resample(streams, replicates, rng, block)):
        for residual in chunk[: windows - done]:
            upper, lower, alarm = _advance(detector, upper, lower, residual)
            alarms += int(np.count_nonzero(alarm))
        done += len(chunk)
        if done >= windows:
            break
    return FalseAlarms(alarms, windows * replicates)


def detection_delays(
    detector: Cusum,
    streams: Sequence[Float64],
    rng: np.random.Generator,
    *,
    step: float,
    unit: StepUnit = "residual",
    limit: int = 1000,
    replicates: int = 1000,
    block: int = BLOCK,
) -> Float64:
    """Return the windows from a lasting step to the first alarm that follows it, (replicates,), infinite where none.

    The detector has run for 200 windows when the step comes, so its sums are where they usually are; an alarm before
    the step starts it anew and does not count. 1 is an alarm in the first shifted window.

    Args:
        detector: The detector to judge.
        streams: Scores without a change, one array (n,) per device in stream order.
        rng: The generator of the bootstrap.
        step: Size, with its sign.
        unit: ``residual``: added to each prewhitened residual, in its standard deviations (1); ``score``: added to
            each score, in standard deviations of the scores. Prewhitening leaves less of the latter.
        limit: Windows to wait, at least 1.
        replicates: Streams.
        block: The length of the bootstrap's blocks, in windows.

    Raises:
        ConfigError: A number is below 1.
        DataError: No score is given, or one is not finite.
    """
    if limit < 1:
        raise ConfigError(f"limit: expected at least 1 window, got {limit}")
    reference = detector.reference
    # What a step in the score is after prewhitening: all of it in its first window, less in every later one.
    changed = np.full(limit, step)
    if unit == "score":
        changed = (reference.prewhiten(np.concatenate([[0.0], changed])))[1:]
    upper, lower = np.zeros(replicates), np.zeros(replicates)
    delays = np.full(replicates, np.inf)
    now = -_WARM_UP
    for chunk in residuals_of(reference, resample(streams, replicates, rng, block)):
        for residual in chunk:
            shifted = residual + changed[now] if now >= 0 else residual
            upper, lower, alarm = _advance(detector, upper, lower, shifted)
            now += 1
            if now > 0:
                delays[alarm & np.isinf(delays)] = now
            if now == limit:
                return delays
        if np.isfinite(delays).all():
            return delays
    raise AssertionError("resample has no end")


def _advance(
    detector: Cusum, upper: Float64, lower: Float64, residual: Float64
) -> tuple[Float64, Float64, NDArray[np.bool_]]:
    """Take one residual of every replicate: (3) of `cusum` side by side."""
    upper = np.maximum(upper + residual - detector.slack, 0.0)
    lower = np.maximum(lower - residual - detector.slack, 0.0)
    alarm = np.maximum(upper, lower) > detector.threshold
    return np.where(alarm, 0.0, upper), np.where(alarm, 0.0, lower), alarm
