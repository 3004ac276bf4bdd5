"""What the source's own devices allow, from hand-made tables and from tiny trainings."""

import numpy as np
import pytest

from acclimate.adaptation.data.corruptions import TUNING
from acclimate.adaptation.methods.policy_calibration import STRONG, TOLERATED, by_age, calibrate_policy, decide
from acclimate.adaptation.methods.policy_settings import AGREEMENT_AGES, RungScore
from acclimate.adaptation.model.spec import NetworkSpec

SPEC = NetworkSpec("conv1d", channels=2, length=12, classes=2, widths=(4, 4), kernels=(3, 3))


def scores(gains: list[float], rung: str = "statistics") -> list[RungScore]:
    return [RungScore(str(i), rung, 0.5, 0.5 + gain, 1.0, (0.9,) * len(AGREEMENT_AGES)) for i, gain in enumerate(gains)]  # type: ignore[arg-type]


def test_a_rung_is_proven_only_if_the_lower_end_of_its_99_percent_interval_is_above_zero() -> None:
    # mean 0.05, standard error 0.01291; t(3, 0.99) = 4.541: lower end -0.0086
    assert decide(scores([0.02, 0.04, 0.06, 0.08])) is None
    # mean 0.05, standard error 0.00408; lower end 0.0315
    assert decide(scores([0.04, 0.045, 0.055, 0.06])) == "statistics"


def test_a_rung_that_harmed_one_device_or_was_seen_on_three_is_never_proven() -> None:
    assert decide(scores([0.2] * 12)) == "statistics"
    assert decide(scores([0.2] * 12 + [-0.021])) is None
    assert decide(scores([0.2] * 3)) is None


def test_of_proven_rungs_the_larger_gain_is_taken() -> None:
    both = scores([0.04, 0.05, 0.05, 0.06]) + scores([0.09, 0.1, 0.1, 0.11], "statistics+prototypes")
    assert decide(both) == "statistics+prototypes"


def recording(devices: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two tones in noise; each device has a small offset of its own."""
    rng = np.random.default_rng(seed)
    labels = np.tile(np.repeat([0, 1], 15), 2 * devices)
    names = np.repeat([f"d{i}" for i in range(devices)], 60)
    time = np.arange(12)
    tones = np.sin(np.array([0.5, 1.5])[labels][:, None] * time + rng.uniform(0, 6, len(labels))[:, None])
    offset = np.repeat(0.2 * rng.normal(size=(devices, 2)), 60, axis=0)
    windows = tones[:, None] + offset[:, :, None] + 0.1 * rng.normal(size=(len(labels), 2, 12))
    return windows.astype(np.float32), labels.astype(np.int64), names


def test_limits_are_the_farthest_that_a_device_got_that_was_left_out() -> None:
    seen: list[str] = []
    settings = calibrate_policy(*recording(3), SPEC, 0, progress=lambda done, of, text: seen.append(text))
    assert {score.device for score in settings.table} == {"d0", "d1", "d2"}
    assert max(score.gate for score in settings.table) == pytest.approx(1.0)
    assert (settings.rung, settings.gated, settings.weak) == ("statistics", True, False)
    assert seen == ["policy: without d0", "policy: without d1", "policy: without d2", "done"]
    assert calibrate_policy(*recording(3), SPEC, 0) == settings


def test_a_source_with_one_device_is_calibrated_on_simulated_shifts_and_proves_no_rung() -> None:
    settings = calibrate_policy(*recording(1), SPEC, 0)
    assert settings.rung == "source"
    assert settings.weak
    assert settings.gated
    kinds = {score.device.split(":")[0] for score in settings.table}
    assert kinds <= set(TUNING)
    assert len(kinds) >= 4
    faint = [s for s in settings.table if s.device.endswith(f":{TOLERATED:g}")]
    strong = [s for s in settings.table if s.device.endswith(f":{STRONG:g}")]
    assert max(score.gate for score in faint) == pytest.approx(1.0)
    assert max(score.gate for score in strong) > 1.0


@pytest.mark.long
def test_a_limit_does_not_depend_on_the_length_of_the_recording() -> None:
    windows, labels, devices = recording(3)
    settings = calibrate_policy(windows, labels, devices, SPEC, 0)
    longer = np.concatenate([np.tile(np.flatnonzero(devices == name), 4) for name in np.unique(devices)])
    cap = calibrate_policy(windows[longer], labels[longer], devices[longer], SPEC, 0)
    assert cap.mean_limit == pytest.approx(settings.mean_limit, rel=0.5)


def test_limits_of_agreement_are_read_at_equal_age_and_a_device_that_ended_keeps_its_last() -> None:
    short = {0: 1.0, 8: 0.1, 32: 0.9, 56: 0.7, 64: 0.8, 120: 0.85}
    assert by_age(short) == (0.7, 0.8, 0.85, 0.85, 0.85)
    assert by_age({**short, 128: 0.6, 248: 0.65, 256: 0.9, 504: 0.8, 512: 0.75, 4000: 0.5}) == (0.7, 0.8, 0.6, 0.8, 0.5)
    assert by_age({0: 1.0, 8: 0.4}) == (0.4,) * 5
