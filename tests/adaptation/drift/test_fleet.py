"""The fleet: common and own parts, and how many of the flagged devices are healthy."""

import numpy as np
import pytest

from acclimate.adaptation.drift.fleet import decompose, e_from_p, flag_by_e, flag_by_p, p_values
from acclimate.adaptation.errors import ConfigError, DataError


def test_a_common_move_is_common_and_a_broken_device_keeps_its_own() -> None:
    rng = np.random.default_rng(0)
    magnitudes = rng.normal(0, 0.01, (50, 9)) + np.where(np.arange(50) < 25, 0.0, 2.0)[:, None]
    magnitudes[30:, 4] += 5
    split = decompose(magnitudes)
    np.testing.assert_allclose(split.common, np.where(np.arange(50) < 25, 0, 2), atol=0.05)
    np.testing.assert_allclose(split.own[30:, 4], 5, atol=0.05)
    np.testing.assert_allclose(np.delete(split.own, 4, axis=1), 0, atol=0.05)
    np.testing.assert_allclose(split.common[:, None] + split.own, magnitudes)


def test_the_order_of_devices_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    magnitudes, order = rng.normal(size=(5, 8)), rng.permutation(8)
    plain, shuffled = decompose(magnitudes), decompose(magnitudes[:, order])
    np.testing.assert_array_equal(shuffled.common, plain.common)
    np.testing.assert_array_equal(shuffled.own, plain.own[:, order])


def test_devices_that_are_absent_count_for_nothing() -> None:
    magnitudes = np.array([[1.0, 3.0, np.nan], [1.0, 2.0, 6.0]])
    split = decompose(magnitudes, np.array([[True, True, False], [True, True, True]]))
    np.testing.assert_array_equal(split.common, [2.0, 2.0])
    np.testing.assert_array_equal(split.own, [[-1.0, 1.0, np.nan], [-1.0, 0.0, 4.0]])
    with pytest.raises(DataError, match="mark the device absent"):
        decompose(magnitudes)
    with pytest.raises(DataError, match="leave the tick out"):
        decompose(magnitudes, np.zeros((2, 3), dtype=bool))
    with pytest.raises(DataError, match="ticks, devices"):
        decompose(magnitudes[0])


def test_p_values_are_shares_of_the_reference_and_never_zero() -> None:
    reference = np.array([5.0, 1.0, 3.0, 3.0])
    assert p_values(reference, np.array([0.0, 3.0, 3.1, 6.0])).tolist() == [1.0, 0.8, 0.4, 0.2]
    rng = np.random.default_rng(0)
    p = p_values(rng.normal(size=999), rng.normal(size=20_000))
    for level in (0.05, 0.2, 0.5):
        assert (p <= level).mean() == pytest.approx(level, abs=0.04)
    with pytest.raises(DataError, match="got none"):
        p_values(np.empty(0), reference)
    with pytest.raises(DataError, match="finite"):
        p_values(reference, np.array([np.nan]))


def test_e_values_of_uniform_p_have_mean_one() -> None:
    # Midpoints of a fine grid: the integral of 1 / (2 sqrt p) over (0, 1) is 1.
    assert e_from_p((np.arange(1_000_000) + 0.5) / 1_000_000).mean() == pytest.approx(1, abs=1e-3)
    with pytest.raises(DataError, match="above 0"):
        e_from_p(np.array([0.0]))


def test_benjamini_and_hochberg_s_own_example_flags_its_first_four() -> None:
    # The fifteen p-values of the paper's section 3.2.
    p = np.array(
        [
            0.0001,
            0.0004,
            0.0019,
            0.0095,
            0.0201,
            0.0278,
            0.0298,
            0.0344,
            0.0459,
            0.324,
            0.4262,
            0.5719,
            0.6528,
            0.759,
            1.0,
        ]
    )
    order = np.random.default_rng(0).permutation(15)
    assert flag_by_p(p[order]).tolist() == (order < 4).tolist()


def test_a_p_value_over_its_own_line_is_flagged_when_a_later_one_is_under() -> None:
    assert flag_by_p(np.array([0.03, 0.04, 0.9]), alpha=0.06).tolist() == [True, True, False]


def test_e_values_are_flagged_by_hand_worked_lines() -> None:
    # N / (alpha k) at alpha 0.1: 50, 25, 16.7, 12.5, 10.
    assert flag_by_e(np.array([20.0, 9.0, 26.0, 26.0, 0.0]), alpha=0.1).tolist() == [True, False, True, True, False]
    assert not flag_by_e(np.array([49.0, 9.0, 9.0, 9.0, 9.0]), alpha=0.1).any()


@pytest.mark.parametrize("dependent", [False, True])
def test_the_share_of_healthy_devices_among_the_flagged_stays_below_alpha(dependent: bool) -> None:
    rng = np.random.default_rng(1)
    reference = rng.normal(size=50_000)
    shares = {"p": [], "e": []}
    found = {"p": 0, "e": 0}
    for _ in range(150):
        common = rng.normal() if dependent else 0.0
        x = np.sqrt(0.5) * (rng.normal(size=100) + common) if dependent else rng.normal(size=100)
        x[:10] += 6
        p = p_values(reference, x)
        for name, flags in (("p", flag_by_p(p, 0.1)), ("e", flag_by_e(e_from_p(p), 0.1))):
            shares[name].append(flags[10:].sum() / max(1, flags.sum()))
            found[name] += int(flags[:10].sum())
    assert np.mean(shares["p"]) <= 0.12
    assert np.mean(shares["e"]) <= 0.1
    assert found["p"] >= found["e"]
    assert found["p"] > 1400


def test_nothing_is_flagged_without_devices_or_evidence() -> None:
    assert flag_by_p(np.empty(0)).shape == flag_by_e(np.empty(0)).shape == (0,)
    assert not flag_by_p(np.full(5, 0.5)).any()
    assert not flag_by_e(np.ones(5)).any()


def test_values_out_of_range_are_refused() -> None:
    for p in (0.0, 1.1, float("nan")):
        with pytest.raises(DataError, match="p-values"):
            flag_by_p(np.array([p]))
    for e in (-1.0, float("nan")):
        with pytest.raises(DataError, match="e-values"):
            flag_by_e(np.array([e]))
    for alpha in (0.0, 1.0):
        with pytest.raises(ConfigError, match="alpha"):
            flag_by_p(np.array([0.5]), alpha)
        with pytest.raises(ConfigError, match="alpha"):
            flag_by_e(np.array([0.5]), alpha)
