"""Rank statistics: how well a score separates (AUROC) and how well two figures agree in order (Spearman).

    (1) AUROC    = (R - p (p + 1) / 2) / (p n)    R the sum of the ranks of p high among p + n values
    (2) Spearman = correlation of the ranks

Ranks of equal values are their mean, so (1) counts a tie as half. Neither needs a threshold or a unit.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from acclimate.adaptation.errors import DataError

__all__ = ["auroc", "ranks", "spearman"]


def ranks(values: ArrayLike) -> NDArray[np.float64]:
    """Give each value's rank from 1, equal values their mean rank; (n,) in and out.

    Raises:
        DataError: A value is NaN.

    >>> ranks([10.0, 30.0, 10.0, 20.0]).tolist()
    [1.5, 4.0, 1.5, 3.0]
    """
    flat = np.asarray(values, dtype=np.float64).ravel()
    if np.isnan(flat).any():
        raise DataError("ranks: expected numbers, found NaN", "not_finite")
    _, position, counts = np.unique(flat, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)  # rank of the last of each run of equal values
    mean: NDArray[np.float64] = (last - (counts - 1) / 2)[position]
    return mean


def auroc(low: ArrayLike, high: ArrayLike) -> float:
    """Give the chance that a value of ``high`` exceeds one of ``low``, a tie counting half: 0.5 is no separation. (1)

    Raises:
        DataError: One side is empty, or a value is NaN.

    >>> auroc([1.0, 2.0], [2.0, 3.0])
    0.875
    """
    below, above = np.asarray(low, dtype=np.float64).ravel(), np.asarray(high, dtype=np.float64).ravel()
    if below.size == 0 or above.size == 0:
        raise DataError(f"auroc: expected values on both sides, got {below.size} low and {above.size} high", "empty")
    total = ranks(np.concatenate([below, above]))[below.size :].sum()
    return float((total - above.size * (above.size + 1) / 2) / (above.size * below.size))


def spearman(a: ArrayLike, b: ArrayLike) -> float | None:
    """Give the rank correlation of pairs, -1 to 1; None where one side is constant, so that no order exists. (2)

    Raises:
        DataError: The sides differ in length, have fewer than two values, or hold NaN.

    >>> spearman([1.0, 2.0, 3.0], [1.0, 8.0, 27.0])
    1.0
    """
    first, second = ranks(a), ranks(b)
    if first.size != second.size or first.size < 2:
        raise DataError(f"spearman: expected at least two pairs, got {first.size} and {second.size} values", "empty")
    first, second = first - first.mean(), second - second.mean()
    scale = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / scale if scale > 0.0 else None
