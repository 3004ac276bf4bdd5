"""The risk monitor: valid whenever one looks, and an alarm is the inequality and nothing else."""

import math

import numpy as np
import pytest

from adaptation.errors import ConfigError, DataError
from adaptation.guards.risk_monitor import RiskMonitor, RiskState, half_width


def test_the_half_width_is_the_stitched_boundary() -> None:
    for count, alpha in ((2, 0.05), (100, 0.01), (2000, 0.1)):
        expected = 0.85 * np.sqrt((np.log(np.log(2 * count)) + 0.72 * np.log(10.4 / alpha)) / count)
        assert half_width(count, alpha) == pytest.approx(float(expected), rel=1e-12)
    assert half_width(1, 0.05) == math.inf


def test_the_band_holds_the_true_risk_at_every_time_of_nearly_all_runs() -> None:
    rng = np.random.default_rng(0)
    count = np.arange(1, 2001)
    width = np.array([half_width(int(t), 0.05) for t in count])
    for risk in (0.5, 0.1):
        running = (rng.random((500, 2000)) < risk).cumsum(axis=1) / count
        left = (np.abs(running - risk) > width).any(axis=1).mean()  # at any time: any stopping rule is covered
        assert left <= 0.05


def test_a_stream_at_the_source_s_risk_raises_no_alarm_and_a_doubled_error_does() -> None:
    rng = np.random.default_rng(1)
    monitor = RiskMonitor(source_risk=0.2, source_count=1000)
    state, risk = monitor.observe(RiskState(), (rng.random(5000) < 0.2).astype(float))
    assert not risk.alarm
    assert risk.low < 0.2 < risk.high
    state, risk = monitor.observe(RiskState(), (rng.random(1500) < 0.45).astype(float))
    assert risk.alarm
    assert risk.low > risk.limit == monitor.limit == 0.2 + half_width(1000, 0.01) + 0.05
    assert state.count == 1500


def test_how_labels_are_batched_does_not_matter_and_an_alarm_stays() -> None:
    monitor = RiskMonitor(source_risk=0.0, source_count=5000, tolerance=0.0, alpha=0.05)
    losses = [1.0] * 12 + [0.0] * 400
    one, single = RiskState(), RiskState()
    one, whole = monitor.observe(one, losses)
    for loss in losses:
        single, last = monitor.observe(single, [loss])
    assert one == single
    assert whole == last
    assert whole.alarm
    assert whole.mean - half_width(412, 0.05) < monitor.limit  # only the past of it was an alarm


def test_without_labels_the_interval_is_everything() -> None:
    state, risk = RiskMonitor(0.1, 100).observe(RiskState(), [])
    assert (state, risk.low, risk.high, risk.alarm) == (RiskState(), 0.0, 1.0, False)


@pytest.mark.parametrize("loss", [-0.1, 1.1, math.nan])
def test_a_loss_out_of_range_is_refused_and_not_absorbed(loss: float) -> None:
    with pytest.raises(DataError, match="losses from 0 to 1"):
        RiskMonitor(0.1, 100).observe(RiskState(), [0.0, loss])


@pytest.mark.parametrize("changes", [{"source_risk": 1.5}, {"source_count": 1}, {"alpha": 0.0}, {"tolerance": -0.1}])
def test_settings_out_of_range_are_errors(changes: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="risk monitor"):
        RiskMonitor(**{"source_risk": 0.1, "source_count": 100, **changes})  # type: ignore[arg-type]
