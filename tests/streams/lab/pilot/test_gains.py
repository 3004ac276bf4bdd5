"""Gains over devices and what they are worth, against other ways to compute them."""

import itertools

import numpy as np
import pytest

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.methods.policy_settings import RungScore
from acclimate.streams.lab.pilot.economics import label_break_even, yearly
from acclimate.streams.lab.pilot.gains import DeviceScore, gain_of, simulated_scores
from acclimate.streams.lab.pilot.options import Costs

ONES = (1.0,) * 5  # agreement at each age; nothing here reads it


def scores(*changes: float) -> list[DeviceScore]:
    return [
        DeviceScore(f"d{number}", 0.5, 0.5 + c, c, c - 0.01, c + 0.01, c + 0.01 < 0) for number, c in enumerate(changes)
    ]


def test_the_interval_of_the_mean_is_that_of_all_resamples_of_the_devices() -> None:
    changes = (-0.03, 0.02, 0.07, 0.2)
    every = [np.mean(drawn) for drawn in itertools.product(changes, repeat=4)]  # all 256 equally likely draws
    found = gain_of(scores(*changes), seed=3)
    assert found is not None
    assert found.mean == pytest.approx(0.065)
    assert found.low is not None
    assert found.high is not None
    # the draws fall on those 256 values; within one step of the exact quantiles
    assert abs(found.low - np.quantile(every, 0.025)) < 0.015
    assert abs(found.high - np.quantile(every, 0.975)) < 0.015
    assert (found.worst, found.best, found.devices, found.harmed) == (-0.03, 0.2, 4, ("d0",))


def test_two_devices_have_no_interval_and_none_have_no_gain() -> None:
    found = gain_of(scores(0.1, 0.3))
    assert found is not None
    assert (found.low, found.high) == (None, None)
    assert gain_of([]) is None


def test_without_an_interval_a_loss_of_more_than_a_point_counts_as_harm() -> None:
    table = [
        RungScore("gain:4", "leantta", source_accuracy=0.5, accuracy=0.48, gate=1, agreement=ONES),
        RungScore("noise:4", "leantta", source_accuracy=0.5, accuracy=0.495, gate=1, agreement=ONES),
        RungScore("a", "statistics+prototypes", source_accuracy=0, accuracy=1, gate=1, agreement=ONES),
    ]
    found = simulated_scores(table)
    assert set(found) == {"leantta"}
    assert [score.harmed for score in found["leantta"]] == [True, False]


def test_a_year_pays_for_compute_beyond_the_sources_alone() -> None:
    costs = Costs(label=2.0, error=0.25, cpu_hour=0.36, windows_per_day=2000.0, devices=5)
    year = yearly("cum-bn", "measured", costs, (0.02, -0.01, 0.05), 300e-6, 100e-6)
    windows = 365 * 2000 * 5
    assert year.avoided == pytest.approx((windows * 0.02, windows * -0.01, windows * 0.05))
    assert year.compute_hours == pytest.approx(windows * 300e-6 / 3600)
    extra = windows * 200e-6 / 3600 * 0.36
    assert year.extra_compute == pytest.approx(extra)
    assert year.net == pytest.approx((windows * 0.005 - extra, -windows * 0.0025 - extra, windows * 0.0125 - extra))
    assert year.labels == pytest.approx((windows * 0.005 - extra) / 2)


def test_labels_break_even_where_their_price_is_the_bill_of_the_errors_they_avoid() -> None:
    costs = Costs(label=3.0, error=0.01, cpu_hour=0.0, windows_per_day=1000.0, devices=4)
    for row in label_break_even(costs):
        bill = 365 * 1000 * 4 * 0.01
        assert row.break_even_gain is not None
        assert row.cost == row.labels_per_device * 4 * 3
        assert row.break_even_gain * bill == pytest.approx(row.cost)
    free = Costs(label=0.0, error=0.0, cpu_hour=0.0, windows_per_day=1.0, devices=1)
    assert label_break_even(free)[0].break_even_gain is None
    assert yearly("cum-bn", "measured", free, (0.1, None, None), 1e-3, 1e-3).labels is None


@pytest.mark.parametrize(
    ("name", "value"), [("label", -1.0), ("error", float("nan")), ("windows_per_day", 0.0), ("devices", 0)]
)
def test_impossible_prices_are_refused(name: str, value: float) -> None:
    given = {"label": 1.0, "error": 1.0, "cpu_hour": 1.0, "windows_per_day": 1.0, "devices": 1}
    with pytest.raises(ConfigError, match="expected"):
        Costs(**{**given, name: value})  # type: ignore[arg-type]
