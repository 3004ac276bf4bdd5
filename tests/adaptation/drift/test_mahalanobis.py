"""Mahalanobis on frozen features: against matrix inverses, blind to units, never learning from what it scores."""

import numpy as np
import pytest

from acclimate.adaptation.drift.mahalanobis import (
    batch_distance,
    fit_features,
    ledoit_wolf,
    log_scores,
    window_distances,
)
from acclimate.adaptation.errors import ConfigError, DataError


def features(n: int, seed: int, d: int = 6) -> np.ndarray:
    mixing = np.random.default_rng(99).normal(size=(d, d)) + 2 * np.eye(d)
    return np.random.default_rng(seed).normal(size=(n, d)) @ mixing + 5


def test_the_shrunk_covariance_is_ledoit_and_wolf_s_formula_row_by_row() -> None:
    x = features(15, seed=0)
    x = x - x.mean(axis=0)
    n, d = x.shape
    sample = sum(np.outer(row, row) for row in x) / n
    m = np.trace(sample) / d
    d2 = np.linalg.norm(sample - m * np.eye(d)) ** 2 / d
    b2 = min(d2, sum(np.linalg.norm(np.outer(row, row) - sample) ** 2 / d for row in x) / n**2)
    covariance, share = ledoit_wolf(x)
    assert 0.05 < share < 1
    assert share == pytest.approx(b2 / d2)
    np.testing.assert_allclose(covariance, b2 / d2 * m * np.eye(d) + (1 - b2 / d2) * sample, rtol=1e-10)


def test_distances_are_what_a_matrix_inverse_gives() -> None:
    train, new = features(300, seed=0), features(20, seed=1)
    mean, std = train.mean(axis=0), train.std(axis=0)
    inverse = np.linalg.inv(ledoit_wolf((train - mean) / std)[0])
    x = (new - mean) / std
    reference = fit_features(train)
    expected = np.einsum("nd,de,ne->n", x, inverse, x) / 6
    np.testing.assert_allclose(window_distances(reference, new), expected, rtol=1e-9)
    np.testing.assert_allclose(log_scores(reference, new), np.log(expected), atol=1e-9)
    centre = x.mean(axis=0)
    assert batch_distance(reference, new) == pytest.approx(20 * centre @ inverse @ centre)
    assert batch_distance(reference, new, effective=5.0) == pytest.approx(5 * centre @ inverse @ centre)
    assert batch_distance(reference, new[::-1]) == pytest.approx(batch_distance(reference, new))


def test_on_the_source_a_window_has_distance_one_and_a_batch_as_many_as_features() -> None:
    mixing = np.eye(6) + 0.3 * np.random.default_rng(7).normal(size=(6, 6))
    reference = fit_features(np.random.default_rng(0).normal(size=(5000, 6)) @ mixing)
    new = np.random.default_rng(1).normal(size=(20_000, 6)) @ mixing
    assert window_distances(reference, new).mean() == pytest.approx(1, rel=0.03)
    batches = [batch_distance(reference, batch) for batch in np.split(new, 400)]
    assert np.mean(batches) == pytest.approx(6, rel=0.1)
    assert np.var(batches) == pytest.approx(12, rel=0.3)


def test_the_unit_of_a_feature_does_not_matter() -> None:
    train, new = features(50, seed=0), features(20, seed=1)
    gain, offset = np.array([1e-3, 1, 1e4, -2, 0.5, 7]), np.array([0, 5, -1e3, 1, 0, 2])
    plain = window_distances(fit_features(train), new)
    changed = window_distances(fit_features(train * gain + offset), new * gain + offset)
    np.testing.assert_allclose(changed, plain, rtol=1e-9)


def test_fewer_windows_than_features_and_copies_of_a_feature_still_give_finite_distances() -> None:
    few = features(4, seed=0)
    assert fit_features(few).shrinkage > 0
    assert np.isfinite(window_distances(fit_features(few), features(20, seed=1))).all()
    copied = np.tile(features(50, seed=0)[:, :1], (1, 3))
    assert np.isfinite(window_distances(fit_features(copied), np.array([[9.0, 9.0, -9.0]]))).all()


def test_features_that_never_fire_are_left_out() -> None:
    train = features(50, seed=0)
    dead = np.insert(train, 2, 0.0, axis=1)
    reference = fit_features(dead)
    assert reference.dimension == 6
    fired = np.insert(features(20, seed=1), 2, 3.0, axis=1)
    expected = window_distances(fit_features(train), features(20, seed=1))
    np.testing.assert_allclose(window_distances(reference, fired), expected)


def test_a_window_at_the_very_mean_has_a_finite_score() -> None:
    reference = fit_features(features(50, seed=0))
    assert np.isfinite(log_scores(reference, reference.mean[None])).all()


def test_scoring_slowly_drifting_windows_never_moves_the_reference() -> None:
    reference = fit_features(features(500, seed=0))
    drifting = features(2000, seed=1) + 0.005 * np.arange(2000)[:, None]
    first = window_distances(reference, drifting)
    assert (window_distances(reference, drifting) == first).all()
    assert first[-100:].mean() > 5 * first[:100].mean()
    with pytest.raises(ValueError, match="read-only"):
        reference.mean[0] = 1


def test_what_does_not_fit_is_refused() -> None:
    train = features(50, seed=0)
    reference = fit_features(train)
    broken = train.copy()
    broken[3, 2] = np.nan
    with pytest.raises(DataError, match="finite"):
        fit_features(broken)
    with pytest.raises(DataError, match="finite"):
        window_distances(reference, broken)
    with pytest.raises(DataError, match=r"\(n, 6\)"):
        log_scores(reference, train[:, :5])
    with pytest.raises(DataError, match="at least two"):
        fit_features(train[:1])
    with pytest.raises(DataError, match="constant"):
        fit_features(np.ones((9, 3)))
    with pytest.raises(DataError, match="at least one window"):
        batch_distance(reference, train[:0])
    with pytest.raises(ConfigError, match="above 0"):
        batch_distance(reference, train, effective=-1.0)
