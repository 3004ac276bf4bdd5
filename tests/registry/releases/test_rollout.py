"""A wave is judged by what its devices did, with a least number of them and against a control group."""

import math
import statistics

import pytest
from pydantic import ValidationError

from acclimate.registry.releases.release import unit_hash
from acclimate.registry.releases.rollout import DeviceEvidence, RolloutPolicy, assess, bad_device, group_of, newcombe

SALT = "00ff00ff00ff00ff"
POLICY = RolloutPolicy(observe_s=60.0, min_devices=20, bad_share_max=0.05)
GOOD = DeviceEvidence(100, 0.9, 100, 0.9, 10, 0, 10, 0)
SILENT = DeviceEvidence(100, 0.9, 0, 0.0, 10, 0, 0, 0)
REFUSED = DeviceEvidence(100, 0.9, 0, 0.0, 10, 0, 0, 0, refused="the canary misses")


def fleet(share: float, wave: list[DeviceEvidence], control: list[DeviceEvidence]) -> dict[str, DeviceEvidence]:
    """Give each evidence to a device of its group."""
    names = [f"pump-{number}" for number in range(20_000)]
    inside = [name for name in names if unit_hash(SALT, name) < share][: len(wave)]
    other = [name for name in names if unit_hash(SALT, name) >= 1 - share][: len(control)]
    return dict(zip(inside, wave, strict=True)) | dict(zip(other, control, strict=True))


def outcome(
    wave: list[DeviceEvidence], control: list[DeviceEvidence], watched_s: float = 61.0, **changes: float
) -> str:
    policy = POLICY.model_copy(update=changes)
    return assess(policy, SALT, 0.1, watched_s, fleet(0.1, wave, control), []).outcome


@pytest.mark.parametrize(("bad", "expected"), [(0, "pass"), (1, "pass"), (2, "abort"), (20, "abort")])
def test_more_than_the_allowed_share_of_bad_devices_aborts(bad: int, expected: str):
    assert outcome([REFUSED] * bad + [GOOD] * (20 - bad), [GOOD] * 20) == expected


def test_bad_devices_abort_without_waiting_for_the_end_of_the_time():
    assert outcome([REFUSED] * 2 + [GOOD] * 18, [GOOD] * 20, watched_s=1.0) == "abort"


def test_one_bad_device_of_few_says_nothing_before_the_least_number_has_answered():
    assert outcome([REFUSED] + [SILENT] * 19, [GOOD] * 20) == "wait"
    assert outcome([REFUSED] * 2 + [SILENT] * 18, [GOOD] * 20) == "wait"


def test_a_wave_smaller_than_the_least_number_needs_all_of_its_devices():
    assert outcome([GOOD] * 3, [GOOD] * 3) == "pass"
    assert outcome([GOOD, GOOD, SILENT], [GOOD] * 3) == "wait"
    assert outcome([GOOD, GOOD, REFUSED], [GOOD] * 3) == "abort"


def test_a_wave_that_reaches_nobody_passes_after_its_time():
    assert outcome([], [GOOD] * 3) == "pass"
    assert outcome([], [], watched_s=59.0) == "wait"


def test_a_refusal_by_a_worker_aborts_at_the_end_of_the_time_not_before():
    devices = fleet(0.1, [GOOD] * 20, [GOOD] * 20)
    assert assess(POLICY, SALT, 0.1, 59.0, devices, ["w1: damaged"]).outcome == "wait"  # it tries again after 30 s
    assert assess(POLICY, SALT, 0.1, 61.0, devices, ["w1: damaged"]).outcome == "abort"


def test_records_that_became_dead_letters_only_since_the_wave_make_a_device_bad():
    assert bad_device(DeviceEvidence(0, 0, 0, 0, 10, 0, 0, 5), POLICY) is not None
    assert bad_device(DeviceEvidence(0, 0, 0, 0, 0, 10, 0, 5), POLICY) is None  # it was so before
    assert bad_device(DeviceEvidence(0, 0, 0, 0, 10, 0, 10, 5), POLICY) is None


@pytest.mark.parametrize(("now", "bad"), [(0.61, False), (0.59, True)])
def test_a_device_whose_confidence_falls_far_is_bad(now: float, bad: bool):
    evidence = DeviceEvidence(100, 0.9, 100, now, 10, 0, 10, 0)
    assert (bad_device(evidence, POLICY) is not None) == bad
    few = DeviceEvidence(100, 0.9, 19, now, 10, 0, 10, 0)
    assert bad_device(few, POLICY) is None


def test_a_fall_counts_only_against_the_control_group():
    fallen = [DeviceEvidence(100, 0.9, 100, 0.75 + 0.01 * (n % 2), 10, 0, 10, 0) for n in range(20)]
    steady = [DeviceEvidence(100, 0.9, 100, 0.9 + 0.01 * (n % 2), 10, 0, 10, 0) for n in range(20)]
    assert outcome(fallen, steady) == "abort"
    assert outcome(fallen, fallen) == "pass"  # the world has changed, not the bundle
    assert outcome(steady, fallen) == "pass"


def test_the_fall_is_judged_by_the_upper_end_of_its_interval():
    """Against the interval by hand: mean difference +- 1.96 sqrt(s^2 / n + s^2 / n)."""
    changes = [-0.2, -0.1, 0.0, -0.15]
    wave = [DeviceEvidence(100, 0.9, 100, 0.9 + change, 10, 0, 10, 0) for change in changes]
    control = [DeviceEvidence(100, 0.9, 100, 0.9 + change, 10, 0, 10, 0) for change in (0.0, 0.01, -0.01, 0.0)]
    half = 1.959963984540054 * math.sqrt(
        statistics.variance(changes) / 4 + statistics.variance([0.0, 0.01, -0.01, 0.0]) / 4
    )
    upper = statistics.mean(changes) + half
    assert outcome(wave, control, fall_max=-upper - 1e-6) == "abort"
    assert outcome(wave, control, fall_max=-upper + 1e-6) == "pass"


def test_the_control_group_is_of_the_same_share_at_the_other_end_and_never_in_the_wave():
    names = [f"d{number}" for number in range(5000)]
    for share in (0.05, 0.5, 0.7, 1.0):
        groups = [group_of(SALT, share, name) for name in names]
        assert abs(groups.count("wave") / 5000 - share) < 0.03
        assert abs(groups.count("control") / 5000 - min(share, 1 - share)) < 0.03


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [((56, 70, 48, 80), 0.0524, 0.3339), ((9, 10, 3, 10), 0.1705, 0.8090), ((10, 10, 0, 10), 0.6075, 1.0)],
)
def test_the_interval_of_two_shares_is_that_of_the_published_table(
    counts: tuple[int, int, int, int], low: float, high: float
):
    """Newcombe (1998), Table II, method 10."""
    assert newcombe(*counts) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@pytest.mark.parametrize("waves", [(), (0.5,), (0.5, 0.2, 1.0), (0.0, 1.0), (0.5, 0.5, 1.0), (0.5, 1.5)])
def test_waves_that_do_not_rise_to_all_devices_are_refused(waves: tuple[float, ...]):
    with pytest.raises(ValidationError):
        RolloutPolicy(waves=waves)
