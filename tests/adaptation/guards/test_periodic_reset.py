"""Periodic reset: every device has its own period, the same one on every machine."""

import hashlib

import pytest

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.guards.periodic_reset import device_period, reset_due


def test_the_period_is_what_the_digest_of_the_device_says() -> None:
    u = int(hashlib.sha256(b"pump-7").hexdigest()[:16], 16) / 16**16
    assert device_period("pump-7", 1000, 0.25) == round(1000 * (1 + 0.25 * (2 * u - 1)))


def test_a_fleet_does_not_reset_at_once_and_stays_near_the_mean_period() -> None:
    periods = [device_period(f"device-{index}", 1000, 0.25) for index in range(500)]
    assert 750 <= min(periods) <= max(periods) <= 1250
    assert len(set(periods)) > 250
    assert 980 < sum(periods) / 500 < 1020


def test_a_period_of_0_is_never_due_and_a_short_one_stays_at_least_1() -> None:
    assert device_period("a", 0) == 0
    assert not reset_due(10**9, 0)
    assert min(device_period(str(index), 1, 0.9) for index in range(50)) == 1


@pytest.mark.parametrize(("period", "jitter"), [(-1, 0.1), (10, 1.0), (10, -0.1)])
def test_settings_out_of_range_are_errors(period: int, jitter: float) -> None:
    with pytest.raises(ConfigError, match="periodic reset"):
        device_period("a", period, jitter)
