"""Settings of the update transaction, and the record that each one leaves."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.guards.diversity import Diversity, DiversityLimits
from acclimate.adaptation.guards.periodic_reset import RESET_JITTER, RESET_PERIOD
from acclimate.adaptation.guards.reliability import RELIABLE_SHARE

__all__ = ["Action", "GuardSettings", "Record"]

Action = Literal["committed", "answered", "skipped", "rolled_back", "restored", "frozen"]


@dataclass(frozen=True)
class GuardSettings:
    """Strictness of the transaction.

    Args:
        n_min: Reliable windows that an update of the network needs; 0 lets every update through. Raising it updates
            less often.
        reliable_share: See `reliability.reliable`.
        reset_period: Updates between periodic resets, 0 for never.
        reset_jitter: See `periodic_reset.device_period`.
        canary_size: Windows of the canary set, 64 to 256; 0 for none.
        canary_drop: Largest loss of accuracy on it, a share. Raising it lets more be forgotten.
        canary_nats: Largest divergence on it. Raising it lets answers move farther.
        diversity: Limits of the live check.
        rollbacks: So many, at least 1, within ``per_updates`` freeze the device.
        per_updates: See there. Raising it freezes sooner.
        cool_down_windows: Windows that the source answers on a frozen device, at least 1.

    Raises:
        ConfigError: A count is out of range.
    """

    n_min: int = 8
    reliable_share: float = RELIABLE_SHARE
    reset_period: int = RESET_PERIOD
    reset_jitter: float = RESET_JITTER
    canary_size: int = 128
    canary_drop: float = 0.02
    canary_nats: float = 0.5
    diversity: DiversityLimits = field(default_factory=DiversityLimits)
    rollbacks: int = 3
    per_updates: int = 20
    cool_down_windows: int = 1000

    def __post_init__(self) -> None:
        if self.n_min < 0 or min(self.rollbacks, self.per_updates, self.cool_down_windows) < 1:
            raise ConfigError(
                f"guard settings: expected n_min of at least 0 and rollbacks, per_updates and cool_down_windows of at "
                f"least 1, got {self.n_min}, {self.rollbacks}, {self.per_updates} and {self.cool_down_windows}"
            )


@dataclass(frozen=True)
class Record:
    """The work of one transaction and its reason, with every value that a guard looked at; else NaN or None.

    Attributes:
        action: ``committed``; ``answered``: the method made no update, its state went on; ``skipped``: old state, its
            answers; ``rolled_back``: old state, the source's answers; ``restored``: the method starts again, the
            source's answers; ``frozen``: nothing computed, the source's answers.
        windows, sane: Windows of the batch, and those that no rule of `input_sanity` refused.
        refused: The number of windows that each rule refused.
        reasons: Why nothing was committed: ``input`` (no sane window), ``unreliable``, ``not_finite``, ``canary``, or
            the alarms of the live check.
        reliable: Sane windows that the method is sure of.
        live: Averages of the diversity guard after the batch.
        canary_drop, canary_nats: Loss of accuracy and divergence of the candidate on the canary set.
        deviation: The largest relative change of one tensor of the candidate from the source.
        updates: Made since the last reset, after this batch.
        periodic_reset: Whether the method started again before this batch.
        frozen_windows: Windows left of the cool-down after this batch.
    """

    action: Action
    windows: int
    sane: int
    refused: Mapping[str, int]
    reasons: tuple[str, ...] = ()
    reliable: int = 0
    live: Diversity | None = None
    canary_drop: float = math.nan
    canary_nats: float = math.nan
    deviation: float = math.nan
    updates: int = 0
    periodic_reset: bool = False
    frozen_windows: int = 0
