"""Rank statistics against pairs counted one by one and cases worked by hand."""

import numpy as np
import pytest

from acclimate.adaptation.errors import DataError
from benchmarks.rank_statistics import auroc, ranks, spearman


def test_equal_values_share_the_mean_of_their_ranks() -> None:
    assert ranks([3.0, 1.0, 3.0, 3.0, 0.0, 7.0]).tolist() == [4.0, 2.0, 4.0, 4.0, 1.0, 6.0]


def test_auroc_counts_pairs_and_half_of_the_ties() -> None:
    rng = np.random.default_rng(0)
    low, high = rng.integers(0, 6, 41).astype(float), rng.integers(2, 9, 23).astype(float)
    pairs = [1.0 if b > a else 0.5 if b == a else 0.0 for a in low for b in high]
    assert auroc(low, high) == pytest.approx(float(np.mean(pairs)), abs=1e-12)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [([1, 2], [3, 4], 1.0), ([3, 4], [1, 2], 0.0), ([5, 5], [5, 5], 0.5), ([1], [1, 2], 0.75)],
)
def test_auroc_of_cases_worked_by_hand(low: list[float], high: list[float], expected: float) -> None:
    assert auroc(low, high) == expected


def test_spearman_is_one_less_six_times_the_squared_rank_differences() -> None:
    a, b = [10.0, 20.0, 30.0, 40.0, 50.0], [1.0, 3.0, 2.0, 5.0, 4.0]  # without ties: 1 - 6 * 4 / (5 * 24)
    assert spearman(a, b) == pytest.approx(0.8, abs=1e-12)
    assert spearman(a, [-value for value in a]) == pytest.approx(-1.0, abs=1e-12)


def test_spearman_with_ties_is_the_correlation_of_mean_ranks() -> None:
    # Ranks 1.5 1.5 3 4 and 1 3 3 3... deviations (-1 -1 .5 1.5), (-1.5 .5 .5 .5): 2 / sqrt(4.5 * 3)
    assert spearman([1, 1, 2, 3], [0, 9, 9, 9]) == pytest.approx(2 / np.sqrt(13.5), abs=1e-12)


def test_a_constant_side_has_no_order() -> None:
    assert spearman([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None


def test_what_cannot_be_ranked_is_refused() -> None:
    with pytest.raises(DataError, match="both sides"):
        auroc([], [1.0])
    with pytest.raises(DataError, match="NaN"):
        auroc([float("nan")], [1.0])
    with pytest.raises(DataError, match="two pairs"):
        spearman([1.0, 2.0], [1.0])
