"""Two-sided CUSUM on prewhitened scores: has this device's score moved away from its reference, and stayed away?

One score per window arrives, for instance log Mahalanobis. With mean, std and lag-1 correlation phi of a reference that
never changes afterwards:

    (1) x_t = (score_t - mean) / std
    (2) e_t = (x_t - phi x_{t-1}) / sqrt(1 - phi^2),   e_1 = x_1
    (3) S+ = max(0, S+ + e_t - k),   S- = max(0, S- - e_t - k);   alarm where either exceeds h, then both start at 0

(3) is Page, "Continuous inspection schemes", Biometrika 41, 1954. (2) is there because windows of a sensor resemble
their neighbours: without it every detector floods (AR(1) with 0.8: 92 false alarms per 10,000 instead of 0.1). It
shrinks a lasting shift by sqrt((1 - phi) / (1 + phi)), to a third at 0.8; that is the price. k of 0.25 looks for
lasting moves of half a deviation of e or more. h comes from `bootstrap.fit_threshold`.

Per device: five numbers of state, and five of settings where each device has its own reference.

RECONSTRUCTED: the estimate of phi is held within +-0.95, where prewhitening would leave nothing of a shift; a constant
reference has no scale and gets std 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.adaptation.errors import ConfigError, DataError

__all__ = ["Cusum", "CusumState", "ScoreReference", "Seen", "fit_scores"]

_LARGEST_PHI = 0.95
_LEAST_SPREAD = 1e-9  # relative to the mean: below it a standard deviation is rounding

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class ScoreReference:
    """The scores of a time in which nothing has changed.

    Attributes:
        mean, std: The mean and deviation of the scores, std above 0.
        phi: Correlation of neighbouring scores, -1 to 1, both excluded. Raising it makes the detector slower.

    Raises:
        ConfigError: A value is out of range.
    """

    mean: float
    std: float
    phi: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and math.isfinite(self.std) and self.std > 0 and -1 < self.phi < 1):
            raise ConfigError(
                f"score reference: expected a finite mean, std above 0 and phi between -1 and 1, "
                f"got {self.mean}, {self.std}, {self.phi}"
            )

    def standardise(self, scores: Float64) -> Float64:
        """Return x of (1) for an array of scores."""
        return (scores - self.mean) / self.std  # (1)

    def prewhiten(self, standardised: Float64) -> Float64:
        """Return e of (2) for x in stream order along the first axis."""
        residuals = standardised.copy()
        residuals[1:] = (standardised[1:] - self.phi * standardised[:-1]) / math.sqrt(1 - self.phi**2)  # (2)
        return residuals


@dataclass(frozen=True)
class CusumState:
    """All that a device carries from window to window; ``CusumState(*numbers)`` and `dataclasses.astuple` store it.

    Attributes:
        upper, lower: S+ and S-.
        previous: The last x.
        windows: Scores taken since the reset.
        alarms: Raised since the reset.
    """

    upper: float = 0.0
    lower: float = 0.0
    previous: float = 0.0
    windows: float = 0.0
    alarms: float = 0.0


@dataclass(frozen=True)
class Seen:
    """The reading of one score.

    Attributes:
        residual: e_t, about standard normal while nothing changes.
        statistic: The larger of S+ and S- before any reset, in the same unit as h.
        direction: 1 for an alarm because scores rose, -1 because they fell, 0 for none.
    """

    residual: float
    statistic: float
    direction: int


@dataclass(frozen=True)
class Cusum:
    """A detector; the same one serves every device with the same reference.

    Attributes:
        reference: Frozen.
        threshold: h, above 0. Raising it makes false alarms rarer and detection slower.
        slack: k, at least 0. Raising it ignores small lasting moves and is quicker for large ones.

    Raises:
        ConfigError: A value is out of range.

    >>> detector = Cusum(ScoreReference(mean=0.0, std=1.0, phi=0.0), threshold=5.0)
    >>> state = detector.reset()
    >>> for score in (2.0, 2.0, 2.0):
    ...     state, seen = detector.observe(state, score)
    >>> seen.statistic, seen.direction, state.upper
    (5.25, 1, 0.0)
    """

    reference: ScoreReference
    threshold: float = 20.0
    slack: float = 0.25

    def __post_init__(self) -> None:
        if not (math.isfinite(self.threshold) and self.threshold > 0):
            raise ConfigError(f"threshold: expected a number above 0, got {self.threshold}")
        if not (math.isfinite(self.slack) and self.slack >= 0):
            raise ConfigError(f"slack: expected a number from 0, got {self.slack}")

    def reset(self) -> CusumState:
        """Return the state of a device that was never seen."""
        return CusumState()

    def observe(self, state: CusumState, score: float) -> tuple[CusumState, Seen]:
        """Take the next score of a device.

        Raises:
            DataError: The score is NaN or infinite; the state that was given stays good.
        """
        if not math.isfinite(score):
            raise DataError(f"score: expected a finite number, got {score}; leave the window out", "not_finite")
        x = (score - self.reference.mean) / self.reference.std  # (1)
        phi = self.reference.phi
        residual = (x - phi * state.previous) / math.sqrt(1 - phi**2) if state.windows else x  # (2)
        upper = max(0.0, state.upper + residual - self.slack)  # (3)
        lower = max(0.0, state.lower - residual - self.slack)
        direction = (1 if upper >= lower else -1) if max(upper, lower) > self.threshold else 0
        seen = Seen(residual, max(upper, lower), direction)
        if direction:
            upper = lower = 0.0
        return CusumState(upper, lower, x, state.windows + 1, state.alarms + abs(direction)), seen


def fit_scores(streams: Sequence[Float64]) -> ScoreReference:
    """Fit mean, std and phi to reference scores, one array (n,) per device in stream order.

    Pairs of neighbours are taken within a stream only.

    Raises:
        DataError: Fewer than two scores in all, or one that is not finite.

    >>> fit_scores([np.array([1.0, -1.0, -1.0, 1.0, 1.0, -1.0])])
    ScoreReference(mean=0.0, std=1.0, phi=-0.2)
    """
    arrays = [np.asarray(stream, dtype=np.float64) for stream in streams]
    pooled = np.concatenate(arrays) if arrays else np.empty(0)
    if pooled.size < 2:
        raise DataError(f"reference scores: expected at least two, got {pooled.size}", "too_few_windows")
    if not np.isfinite(pooled).all():
        raise DataError("reference scores: expected finite numbers, got NaN or infinity", "not_finite")
    mean, std = float(pooled.mean()), float(pooled.std())
    if std <= _LEAST_SPREAD * abs(mean):
        return ScoreReference(mean, 1.0, 0.0)
    centred = [(array - mean) / std for array in arrays]
    pairs = sum(max(0, array.size - 1) for array in centred)
    products = sum(float(array[1:] @ array[:-1]) for array in centred)
    phi = products / pairs if pairs else 0.0
    return ScoreReference(mean, std, min(_LARGEST_PHI, max(-_LARGEST_PHI, phi)))
