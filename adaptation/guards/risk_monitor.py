"""Risk monitor: an alarm on delayed or audited labels that may be looked at after every single one.

After "Monitoring Risks in Test-Time Adaptation", Schirmer, Jazbec et al., 2025, whose formulas we could not read; the
labelled part is RECONSTRUCTED with the stitched boundary of Howard et al., "Time-uniform, nonparametric, nonasymptotic
confidence sequences", Annals of Statistics 2021. With losses l_i from 0 to 1 (sub-Gaussian, sigma 1/2), t of them:

    (1) w_t = 0.85 sqrt((ln ln(2 t) + 0.72 ln(10.4 / alpha)) / t)          t >= 2
    (2) |mean_t - risk| <= w_t  for all t at once, with probability at least 1 - alpha
    (3) alarm if  mean_t - w_t > R_source + w_n(source) + tolerance

Valid at every stopping time, if which windows are labelled does not depend on whether the answer was right. A false
alarm ever, source and stream together, has at most probability alpha: each is used on one side. The price is size: at
alpha 0.01 the half width is 0.11 with 400 labels and 0.05 with 2000, so pool devices that have fewer than 100.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from adaptation.errors import ConfigError, DataError

__all__ = ["Risk", "RiskMonitor", "RiskState", "half_width"]


def half_width(count: int, alpha: float) -> float:
    """Return w_t of (1) after ``count`` losses; infinite below 2.

    >>> round(half_width(400, 0.01), 3), round(half_width(2000, 0.01), 3)
    (0.112, 0.051)
    """
    if count < 2:
        return math.inf
    return 0.85 * math.sqrt((math.log(math.log(2 * count)) + 0.72 * math.log(10.4 / alpha)) / count)


@dataclass(frozen=True)
class RiskState:
    """What is kept: losses seen and their sum, and whether an alarm was ever raised."""

    count: int = 0
    total: float = 0.0
    alarmed: bool = False


@dataclass(frozen=True)
class Risk:
    """The running risk, its interval (clipped to 0 and 1) and the limit that its lower end must stay below."""

    mean: float
    low: float
    high: float
    limit: float
    alarm: bool


@dataclass(frozen=True)
class RiskMonitor:
    """Configure the monitor.

    Args:
        source_risk: Mean loss on held-out source windows, 0 to 1.
        source_count: How many of them, at least 2.
        tolerance: Rise of the risk that nobody needs to hear about, 0 to 1. Raising it alarms later.
        alpha: Probability of a false alarm, ever; above 0, below 1. Raising it alarms sooner.

    Raises:
        ConfigError: A value is out of range.

    >>> monitor = RiskMonitor(source_risk=0.05, source_count=2000)
    >>> state, risk = monitor.observe(RiskState(), [1.0] * 20)
    >>> risk.alarm
    True
    """

    source_risk: float
    source_count: int
    tolerance: float = 0.05
    alpha: float = 0.01

    def __post_init__(self) -> None:
        in_range = 0 <= self.source_risk <= 1 and 0 <= self.tolerance <= 1 and 0 < self.alpha < 1
        if not in_range or self.source_count < 2:
            raise ConfigError(
                f"risk monitor: expected a source risk and a tolerance from 0 to 1, alpha between 0 and 1 and at "
                f"least 2 source windows, got {self.source_risk}, {self.tolerance}, {self.alpha}, {self.source_count}"
            )

    @property
    def limit(self) -> float:
        """Return the right side of (3)."""
        return self.source_risk + half_width(self.source_count, self.alpha) + self.tolerance

    def observe(self, state: RiskState, losses: Iterable[float]) -> tuple[RiskState, Risk]:
        """Take in losses, each 0 to 1, in the order their labels came; an alarm stays until a new state is begun.

        Raises:
            DataError: A loss is not a number from 0 to 1; nothing is taken in.
        """
        count, total, alarmed = state.count, state.total, state.alarmed
        for loss in losses:
            if not 0 <= loss <= 1:  # NaN fails as well
                raise DataError(f"risk monitor: expected losses from 0 to 1, got {loss}", "wrong_loss")
            count, total = count + 1, total + loss
            # Each t counts, not the last of a batch alone: how labels are batched must not matter.
            alarmed = alarmed or total / count - half_width(count, self.alpha) > self.limit  # (3)
        mean, width = (total / count if count else 0.0), half_width(count, self.alpha)
        low, high = max(0.0, mean - width), min(1.0, mean + width)
        return RiskState(count, total, alarmed), Risk(mean, low, high, self.limit, alarmed)
