"""Thresholds by block bootstrap: blocks stay whole, seeds decide, and the promised rate of false alarms is kept."""

import itertools

import numpy as np
import pytest

from acclimate.adaptation.drift.bootstrap import fit_threshold, resample, residuals_of
from acclimate.adaptation.drift.cusum import ScoreReference, fit_scores
from acclimate.adaptation.drift.run_length import false_alarms
from acclimate.adaptation.errors import ConfigError, DataError
from tests.adaptation.drift.streams import ar1


def test_blocks_are_whole_pieces_of_one_stream() -> None:
    streams = [np.arange(0.0, 40), np.arange(100.0, 130), np.arange(500.0, 505)]
    chunks = resample(streams, 300, np.random.default_rng(0), block=10)
    seen = np.concatenate([next(chunks) for _ in range(3)], axis=1)
    assert seen.shape == (10, 900)
    assert (np.diff(seen, axis=0) == 1).all()
    # Every position that leaves room for a block is drawn; the third stream is shorter than one.
    assert set(seen[0]) == {*range(31), *range(100, 121)}


def test_a_stream_of_a_few_windows_gives_shorter_blocks() -> None:
    assert next(resample([np.arange(9.0)], 4, np.random.default_rng(0), block=50)).shape == (4, 4)
    assert next(resample([np.zeros(1)], 4, np.random.default_rng(0), block=50)).shape == (1, 4)


def test_residuals_do_not_depend_on_where_chunks_end() -> None:
    reference = ScoreReference(1.0, 2.0, 0.6)
    scores = np.random.default_rng(0).normal(size=(30, 4))
    pieces = np.concatenate(list(residuals_of(reference, iter(np.split(scores, [3, 4, 20])))))
    x = (scores - 1) / 2
    expected = np.concatenate([x[:1], (x[1:] - 0.6 * x[:-1]) / 0.8])
    np.testing.assert_allclose(pieces, expected, rtol=1e-12)


@pytest.mark.parametrize("phi", [0.0, 0.8])
def test_false_alarms_on_fresh_replicates_are_within_30_percent_of_the_target(phi: float) -> None:
    scores = ar1(1500, phi, seed=11)
    reference = fit_scores([scores])
    detector = fit_threshold(reference, [scores], np.random.default_rng(0), windows_per_alarm=1000, replicates=500)
    found = false_alarms(detector, [scores], np.random.default_rng(1), windows=2000, replicates=500)
    assert found.windows == 1_000_000
    assert 7 <= found.per_10_000 <= 13


def test_rarer_alarms_need_a_higher_threshold_and_the_seed_decides_it() -> None:
    scores = ar1(1000, 0.5, seed=12)
    reference = fit_scores([scores])

    def threshold(windows: int, seed: int) -> float:
        rng = np.random.default_rng(seed)
        return fit_threshold(reference, [scores], rng, windows_per_alarm=windows, replicates=100).threshold

    heights = [threshold(windows, 0) for windows in (100, 300, 900)]
    assert heights == sorted(heights)
    assert threshold(300, 0) == heights[1] != threshold(300, 1)


def test_heavy_tails_need_a_higher_threshold_than_gaussian_scores() -> None:
    rng = np.random.default_rng(3)
    heights = []
    for scores in (rng.normal(size=2000), rng.standard_t(2.2, size=2000)):
        reference = fit_scores([scores])
        detector = fit_threshold(reference, [scores], np.random.default_rng(0), windows_per_alarm=500, replicates=200)
        heights.append(detector.threshold)
    assert heights[1] > heights[0] + 1


def test_a_constant_reference_gets_the_lowest_threshold_and_no_alarm() -> None:
    constant = np.full(300, 4.2)
    reference = fit_scores([constant])
    rng = np.random.default_rng(0)
    detector = fit_threshold(reference, [constant], rng, windows_per_alarm=100, replicates=10, least=2.5)
    assert detector.threshold == 2.5
    assert false_alarms(detector, [constant], rng, windows=500, replicates=10).alarms == 0


def test_nothing_random_but_the_given_generator_is_touched() -> None:
    before = np.random.get_state()[1].copy()
    scores = ar1(200, 0.5, seed=0)
    fit_threshold(fit_scores([scores]), [scores], np.random.default_rng(0), windows_per_alarm=100, replicates=5)
    assert (np.random.get_state()[1] == before).all()


def test_impossible_settings_and_scores_are_refused_at_once() -> None:
    rng, scores = np.random.default_rng(0), ar1(100, 0.0, seed=0)
    reference = fit_scores([scores])
    for replicates, block in itertools.product((0, 1), (0, 1)):
        if not (replicates and block):
            with pytest.raises(ConfigError, match="at least 1"):
                resample([scores], replicates, rng, block)
    with pytest.raises(ConfigError, match="at least 100"):
        fit_threshold(reference, [scores], rng, windows_per_alarm=10)
    with pytest.raises(DataError, match="got none"):
        resample([], 1, rng)
    with pytest.raises(DataError, match="finite"):
        resample([np.array([0.0, np.nan])], 1, rng)
