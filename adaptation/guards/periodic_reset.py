"""Periodic reset: go back to the source after so many updates, whatever the other guards say.

After RDumb ("RDumb: A simple approach that questions our progress in continual test-time adaptation", Press et al.,
NeurIPS 2023): on long streams nearly every published method falls below the frozen model, and a full reset at a fixed
period matches or beats them. The period counts updates, not time, and each device has its own, so that a fleet that
started together does not forget together:

    (1) period_d = round(period * (1 + jitter * (2 u_d - 1))),  u_d = SHA-256(device) as a fraction of 1

The jitter and its default are RECONSTRUCTED. The count lives in the device's state and so survives a restart.
"""

import hashlib

from acclimate.adaptation.errors import ConfigError

__all__ = ["RESET_JITTER", "RESET_PERIOD", "device_period", "reset_due"]

RESET_PERIOD = 1000
RESET_JITTER = 0.25


def device_period(device: str, period: int = RESET_PERIOD, jitter: float = RESET_JITTER) -> int:
    """Return the period of one device, in updates, at least 1; 0 stays 0 and means never.

    Args:
        device: The device's identifier; equal identifiers have equal periods on every machine.
        period: Mean period in updates. Raising it forgets less often and risks more.
        jitter: Largest relative change of the period, 0 to below 1.

    Raises:
        ConfigError: The period is negative or the jitter out of range.

    >>> device_period("pump-7", period=1000, jitter=0.0)
    1000
    >>> 750 <= device_period("pump-7") <= 1250
    True
    """
    if period < 0 or not 0 <= jitter < 1:
        raise ConfigError(
            f"periodic reset: expected a period of at least 0 and a jitter from 0 to below 1, got {period} and {jitter}"
        )
    if period == 0:
        return 0
    digest = hashlib.sha256(device.encode()).digest()
    u = int.from_bytes(digest[:8], "big") / 2**64
    return max(1, round(period * (1 + jitter * (2 * u - 1))))  # (1)


def reset_due(updates: int, period: int) -> bool:
    """Tell whether a device that made this many updates since its last reset starts again; never with period 0.

    >>> reset_due(999, 1000), reset_due(1000, 1000), reset_due(1000, 0)
    (False, True, False)
    """
    return 0 < period <= updates
