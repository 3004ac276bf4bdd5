"""CUSUM on prewhitened scores: hand-worked steps, and every way in which such detectors go wrong in service."""

import dataclasses
import json

import numpy as np
import pytest

from acclimate.adaptation.drift.cusum import Cusum, CusumState, ScoreReference, fit_scores
from acclimate.adaptation.errors import ConfigError, DataError
from tests.adaptation.drift.streams import ar1


def run(detector: Cusum, scores: np.ndarray) -> tuple[CusumState, list[int]]:
    state, alarms = detector.reset(), []
    for index, score in enumerate(scores):
        state, seen = detector.observe(state, float(score))
        if seen.direction:
            alarms.append(index)
    return state, alarms


def test_three_steps_equal_those_worked_by_hand() -> None:
    detector = Cusum(ScoreReference(mean=10.0, std=2.0, phi=0.6), threshold=4.0, slack=0.25)
    state, seen = detector.observe(detector.reset(), 12.0)  # x = 1, no neighbour yet: e = 1
    assert (state.upper, state.lower, state.previous) == pytest.approx((0.75, 0.0, 1.0))
    state, seen = detector.observe(state, 14.0)  # x = 2, e = (2 - 0.6) / 0.8 = 1.75
    assert (seen.residual, seen.statistic, seen.direction) == pytest.approx((1.75, 2.25, 0))
    state, seen = detector.observe(state, 16.0)  # x = 3, e = (3 - 1.2) / 0.8 = 2.25, S+ = 4.25 > 4
    assert (seen.residual, seen.statistic, seen.direction) == pytest.approx((2.25, 4.25, 1))
    assert state == CusumState(upper=0.0, lower=0.0, previous=3.0, windows=3.0, alarms=1.0)


def test_a_fall_alarms_as_a_rise_does_with_the_other_sign() -> None:
    detector = Cusum(ScoreReference(0.0, 1.0, 0.3), threshold=5.0)
    scores = ar1(400, 0.3, seed=1) + np.repeat([0.0, 1.5], 200)
    rises, falls = run(detector, scores), run(detector, -scores)
    assert rises[1] == falls[1]
    state, seen = detector.reset(), None
    while seen is None or not seen.direction:
        state, seen = detector.observe(state, -2.0)
    assert seen.direction == -1


def test_the_fit_is_mean_deviation_and_lag_one_correlation() -> None:
    x = 3 * ar1(20_000, 0.7, seed=2) + 5
    reference = fit_scores([x])
    assert (reference.mean, reference.std) == pytest.approx((x.mean(), x.std()))
    assert reference.phi == pytest.approx(np.corrcoef(x[1:], x[:-1])[0, 1], abs=1e-3)
    residuals = reference.prewhiten(reference.standardise(x))
    assert residuals.std() == pytest.approx(1, abs=0.01)
    assert abs(np.corrcoef(residuals[1:], residuals[:-1])[0, 1]) < 0.02


def test_the_end_of_one_device_is_no_neighbour_of_the_start_of_the_next() -> None:
    # Within each stream neighbours always differ in sign; across the two they are equal.
    streams = [np.array([1.0, -1.0]), np.array([-1.0, 1.0])] * 20
    assert fit_scores(streams).phi == -0.95


@pytest.mark.parametrize(("gain", "offset"), [(1e-3, 0.0), (250.0, -1e4), (1.0, 7.0)])
def test_unit_and_offset_of_the_score_change_no_alarm(gain: float, offset: float) -> None:
    reference, live = ar1(1000, 0.5, seed=3), ar1(1500, 0.5, seed=4) + np.repeat([0.0, 2.0, -1.0], 500)
    plain = run(Cusum(fit_scores([reference]), threshold=8.0), live)
    changed = run(Cusum(fit_scores([reference * gain + offset]), threshold=8.0), live * gain + offset)
    assert plain[1]
    assert changed[1] == plain[1]


def test_a_flipped_score_swaps_the_two_sums() -> None:
    reference = ScoreReference(0.0, 1.0, 0.5)
    live = ar1(100, 0.5, seed=4)
    state, flipped = (run(Cusum(reference, threshold=1e9), sign * live)[0] for sign in (1, -1))
    assert (state.upper, state.lower) == pytest.approx((flipped.lower, flipped.upper))


def test_reset_clears_everything() -> None:
    detector = Cusum(ScoreReference(0.0, 1.0, 0.5), threshold=5.0)
    run(detector, ar1(100, 0.5, seed=5) + 3)
    assert dataclasses.astuple(detector.reset()) == (0, 0, 0, 0, 0)


def test_a_state_written_as_json_numbers_continues_bit_for_bit() -> None:
    detector = Cusum(fit_scores([ar1(500, 0.8, seed=6)]), threshold=6.0)
    scores = ar1(600, 0.8, seed=7) + np.repeat([0.0, 1.0], 300)
    whole, alarms = run(detector, scores)
    state, _ = run(detector, scores[:137])
    numbers = json.loads(json.dumps(dataclasses.astuple(state)))
    assert all(isinstance(number, float) for number in numbers)
    state = CusumState(*numbers)
    later = []
    for index, score in enumerate(scores[137:], start=137):
        state, seen = detector.observe(state, float(score))
        if seen.direction:
            later.append(index)
    assert state == whole
    assert later == [index for index in alarms if index >= 137]


@pytest.mark.parametrize("value", [0.0, 0.1, -1e9])
def test_a_constant_stream_never_alarms_and_divides_by_nothing(value: float) -> None:
    constant = np.full(2000, value)
    reference = fit_scores([constant])
    assert (reference.std, reference.phi) == (1.0, 0.0)
    assert run(Cusum(reference, threshold=1.0), constant)[1] == []
    lively = fit_scores([ar1(500, 0.8, seed=8)])
    assert run(Cusum(lively, threshold=1.0), np.full(2000, lively.mean))[1] == []


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_rejected_and_not_absorbed(score: float) -> None:
    detector = Cusum(ScoreReference(0.0, 1.0, 0.5))
    state, _ = run(detector, np.array([1.0, 2.0]))
    before = dataclasses.astuple(state)
    with pytest.raises(DataError, match="finite"):
        detector.observe(state, score)
    assert dataclasses.astuple(state) == before
    with pytest.raises(DataError, match="finite"):
        fit_scores([np.array([0.0, 1.0, score])])


@pytest.mark.parametrize("phi", [0.0, 0.8])
def test_a_ramp_of_a_thousandth_of_a_deviation_per_window_alarms(phi: float) -> None:
    detector = Cusum(fit_scores([ar1(3000, phi, seed=9)]), threshold=20.0)
    ramp = ar1(4000, phi, seed=10) + 0.001 * np.arange(4000)
    _, alarms = run(detector, ramp)
    assert alarms
    assert alarms[0] < 2500


def test_a_larger_step_is_seen_no_later_in_the_median() -> None:
    detector = Cusum(ScoreReference(0.0, 1.0, 0.0), threshold=12.0)
    medians = []
    for step in (0.5, 1.0, 2.0, 4.0):
        delays = [run(detector, ar1(400, 0.0, seed=seed) + step)[1][0] for seed in range(15)]
        medians.append(np.median(delays))
    assert medians == sorted(medians, reverse=True)
    assert medians[0] > 3 * medians[-1]


def test_nothing_random_is_touched() -> None:
    before = np.random.get_state()[1].copy()
    run(Cusum(fit_scores([ar1(50, 0.5, seed=0)])), ar1(50, 0.5, seed=1))
    assert (np.random.get_state()[1] == before).all()


def test_impossible_settings_are_refused() -> None:
    for mean, std, phi in ((float("nan"), 1, 0), (0, 0, 0), (0, 1, 1.0), (0, float("inf"), 0)):
        with pytest.raises(ConfigError, match="std above 0"):
            ScoreReference(mean, std, phi)
    with pytest.raises(ConfigError, match="threshold"):
        Cusum(ScoreReference(0, 1, 0), threshold=0.0)
    with pytest.raises(ConfigError, match="slack"):
        Cusum(ScoreReference(0, 1, 0), slack=-0.1)
    with pytest.raises(DataError, match="at least two"):
        fit_scores([])
