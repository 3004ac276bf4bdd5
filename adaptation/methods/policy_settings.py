"""The settings of the policy: one rung, when it may answer, and the figures behind both. Imports no torch."""

from bisect import bisect_right
from dataclasses import dataclass
from typing import Literal, get_args

from acclimate.adaptation.errors import ConfigError

__all__ = ["AGREEMENT_AGES", "RUNGS", "PolicySettings", "Rung", "RungScore"]

Rung = Literal["source", "leantta", "statistics", "prototypes", "statistics+prototypes"]
RUNGS: tuple[Rung, ...] = get_args(Rung)
AGREEMENT_AGES = (32, 64, 128, 256, 512)  # windows a device has sent; younger ones have shown too little to be judged


@dataclass(frozen=True)
class RungScore:
    """The figures of one rung on one device that stood in for a new one, while it always answered.

    Attributes:
        device: The source device that was left out of the training; or KIND:SEVERITY of a simulated shift.
        rung: The rung that answered.
        source_accuracy, accuracy: Without and with it, 0 to 1.
        gate: Largest gate statistic of the device, each part divided by the limit in force.
        agreement: Smallest running agreement with the source from each of `AGREEMENT_AGES` to the next.
    """

    device: str
    rung: Rung
    source_accuracy: float
    accuracy: float
    gate: float
    agreement: tuple[float, ...]


@dataclass(frozen=True)
class PolicySettings:
    """Settings of the policy for one source model; see `acclimate.adaptation.methods.policy`.

    Args:
        rung: The rung that may answer; ``source`` never adapts.
        gated: Whether it answers only while the device is outside the range of the source's own devices.
        mean_limit, variance_limit: The farthest that one of those devices was from the source, above 0, in the units of
            the gate. Raising them adapts later.
        pseudo_windows: N, what the source counts for in lifetime statistics, above 0. Raising it follows more slowly.
        weak: The source had a single device: the limits come from it alone and protect little.
        agreement_limits: Where the rung is not gated, the smallest running agreement with the source, 0 to 1, below
            which it is taken back, from each of `AGREEMENT_AGES` to the next. Raising one takes back sooner.
        table: Figures that the choice rests on.

    Raises:
        ConfigError: A value is out of range.
    """

    rung: Rung
    gated: bool
    mean_limit: float
    variance_limit: float
    pseudo_windows: float
    weak: bool
    agreement_limits: tuple[float, ...] = (0.0,) * len(AGREEMENT_AGES)
    table: tuple[RungScore, ...] = ()

    def __post_init__(self) -> None:
        if self.rung not in RUNGS:
            raise ConfigError(f"rung: expected one of {', '.join(RUNGS)}, got {self.rung!r}")
        if not (self.mean_limit > 0 and self.variance_limit > 0):
            raise ConfigError(f"gate limits: expected numbers above 0, got {self.mean_limit}, {self.variance_limit}")
        if not self.pseudo_windows > 0:
            raise ConfigError(f"pseudo_windows: expected a number above 0, got {self.pseudo_windows}")
        if len(self.agreement_limits) != len(AGREEMENT_AGES) or not all(
            0 <= limit <= 1 for limit in self.agreement_limits
        ):
            raise ConfigError(
                f"agreement_limits: expected {len(AGREEMENT_AGES)} numbers from 0 to 1, got {self.agreement_limits}"
            )

    def agreement_limit(self, windows: int) -> float:
        """Return the limit in force at the age of so many windows; 0, which nothing is below, for the youngest."""
        return (0.0, *self.agreement_limits)[bisect_right(AGREEMENT_AGES, windows)]
