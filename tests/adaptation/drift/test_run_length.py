"""Counting false alarms and delays: the same as the detector of a single device would, and quick enough."""

import numpy as np
import pytest

from acclimate.adaptation.drift.bootstrap import fit_threshold, resample
from acclimate.adaptation.drift.cusum import Cusum, fit_scores
from acclimate.adaptation.drift.run_length import detection_delays, false_alarms
from acclimate.adaptation.errors import ConfigError
from tests.adaptation.drift.streams import ar1


def replicates(streams: list[np.ndarray], seed: int, windows: int, count: int) -> np.ndarray:
    chunks = resample(streams, count, np.random.default_rng(seed), 50)
    parts = [next(chunks)]
    while sum(map(len, parts)) < windows:
        parts.append(next(chunks))
    return np.concatenate(parts)[:windows]


def test_the_count_is_what_single_detectors_raise_on_the_same_streams() -> None:
    scores = ar1(600, 0.7, seed=1)
    detector = Cusum(fit_scores([scores]), threshold=5.0)
    found = false_alarms(detector, [scores], np.random.default_rng(4), windows=330, replicates=7)
    alarms = 0.0
    for stream in replicates([scores], 4, 330, 7).T:
        state = detector.reset()
        for score in stream:
            state, _ = detector.observe(state, float(score))
        alarms += state.alarms
    assert found.alarms == alarms > 5


@pytest.mark.parametrize("step", [2.0, -1.0])
def test_delays_are_those_of_single_detectors_that_met_the_step_after_200_windows(step: float) -> None:
    scores = ar1(600, 0.7, seed=1)
    detector = Cusum(fit_scores([scores]), threshold=5.0)
    rng = np.random.default_rng(4)
    delays = detection_delays(detector, [scores], rng, step=step, unit="score", replicates=7, limit=50)
    streams = replicates([scores], 4, 250, 7)
    streams[200:] += step * detector.reference.std
    expected = []
    for stream in streams.T:
        state, first = detector.reset(), np.inf
        for index, score in enumerate(stream):
            state, seen = detector.observe(state, float(score))
            if seen.direction and index >= 200:
                first = min(first, index - 199)
        expected.append(first)
    np.testing.assert_array_equal(delays, expected)


@pytest.mark.parametrize("phi", [0.0, 0.8])
def test_a_step_of_two_residual_deviations_is_found_within_60_windows_in_95_percent_of_runs(phi: float) -> None:
    scores = ar1(1500, phi, seed=11)
    reference = fit_scores([scores])
    detector = fit_threshold(reference, [scores], np.random.default_rng(0), windows_per_alarm=10_000, replicates=100)
    for step in (2.0, -2.0):
        delays = detection_delays(detector, [scores], np.random.default_rng(1), step=step, replicates=300)
        assert (delays <= 60).mean() >= 0.95


def test_a_larger_step_is_stochastically_found_sooner_and_prewhitening_costs_delay() -> None:
    scores = ar1(1500, 0.8, seed=11)
    detector = Cusum(fit_scores([scores]), threshold=12.0)

    def quartiles(step: float, unit: str) -> np.ndarray:
        rng = np.random.default_rng(1)
        delays = detection_delays(detector, [scores], rng, step=step, unit=unit, replicates=300, limit=400)
        return np.quantile(delays, (0.25, 0.5, 0.75), method="nearest")

    by_size = [quartiles(step, "residual") for step in (1.0, 2.0, 4.0)]
    assert (by_size[0] > by_size[1]).all()
    assert (by_size[1] > by_size[2]).all()
    assert (quartiles(2.0, "score") > by_size[1]).all()


def test_a_step_that_is_never_found_has_an_infinite_delay() -> None:
    scores = ar1(300, 0.0, seed=1)
    detector = Cusum(fit_scores([scores]), threshold=1e6)
    delays = detection_delays(detector, [scores], np.random.default_rng(0), step=1.0, replicates=5, limit=20)
    assert np.isinf(delays).all()


def test_impossible_numbers_are_refused() -> None:
    scores = ar1(300, 0.0, seed=1)
    detector = Cusum(fit_scores([scores]))
    with pytest.raises(ConfigError, match="windows"):
        false_alarms(detector, [scores], np.random.default_rng(0), windows=0)
    with pytest.raises(ConfigError, match="limit"):
        detection_delays(detector, [scores], np.random.default_rng(0), step=1.0, limit=0)
