"""Did a method harm a group? A block bootstrap of its change, paired with the source window by window.

    (1) d_i = 1[method right on i] - 1[source right on i],  in {-1, 0, 1}
    (2) change = mean_i d_i
    (3) change* = mean over ceil(n / b) blocks of b consecutive d, drawn with replacement; 1,000 times
    (4) harmed = 97.5 % quantile of change* below 0

Neighbouring windows are right or wrong together, so single windows must not be drawn. Blocks are circular (Politis and
Romano, 1992: the end joins the start): every window is drawn equally often, so change* is centred on the change.
The block length is the larger of sqrt(n) and the median run of one true class, at most n / 4: a block shorter than an
activity cuts its windows loose from each other and makes the interval too narrow. The textbook n^(1/3) is for weakly
dependent data and too short here.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Change", "block_length", "paired_change", "share_interval"]

_REPLICATES = 1000
_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution


@dataclass(frozen=True)
class Change:
    """Change of accuracy against the source.

    Attributes:
        mean: -1 to 1.
        low, high: Ends of its 95 % interval.
    """

    mean: float
    low: float
    high: float

    @property
    def harmed(self) -> bool:
        """Whether the whole interval lies below zero."""
        return self.high < 0.0  # (4)


def block_length(labels: NDArray[np.int64]) -> int:
    """Return the length of a block for a stream with these true labels, at least 1.

    >>> block_length(np.repeat([0, 1] * 10, 30)), block_length(np.arange(100) % 2)
    (30, 10)
    """
    n = len(labels)
    ends = np.flatnonzero(np.diff(labels)) + 1
    runs = np.diff(np.concatenate([[0], ends, [n]]))
    wanted = max(math.ceil(math.sqrt(n)), int(np.median(runs)))
    return max(1, min(wanted, n // 4))


def paired_change(
    right: NDArray[np.bool_], source_right: NDArray[np.bool_], block: int, seed: int = 0, replicates: int = _REPLICATES
) -> Change:
    """Return the change of accuracy and its interval.

    Args:
        right: (n,) in time order, n at least 1.
        source_right: (n,) of the source on the same windows.
        block: Windows per block, 1 to n; raising it widens the interval.
        seed: Of the draws.
        replicates: Draws; raising it makes the ends of the interval steadier.

    >>> paired_change(np.array([True] * 8), np.array([True] * 8), 2)
    Change(mean=0.0, low=0.0, high=0.0)
    """
    difference = right.astype(np.int64) - source_right.astype(np.int64)  # (1)
    n = len(difference)
    mean = float(difference.mean())  # (2)
    if not difference.any():
        return Change(mean, 0.0, 0.0)
    total = np.concatenate([[0], np.cumsum(np.concatenate([difference, difference[: block - 1]]))])
    sums = total[block:] - total[:-block]  # (n,), the block that begins at each window
    starts = np.random.default_rng([seed, 11]).integers(0, n, (replicates, math.ceil(n / block)))
    draws = sums[starts].mean(axis=1) / block  # (3)
    low, high = np.quantile(draws, [0.025, 0.975])
    return Change(mean, float(low), float(high))


def share_interval(share: float, units: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share that was seen on so many independent units.

    Seeds repeat the same recordings, so the units of a share of harmed groups are groups, not pairs of group and seed:
    rather too wide than too narrow.

    >>> [round(end, 3) for end in share_interval(0.0, 20)]
    [0.0, 0.161]
    """
    spread = _Z * math.sqrt(share * (1 - share) / units + _Z**2 / (4 * units**2))
    middle = share + _Z**2 / (2 * units)
    scale = 1 + _Z**2 / units
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)
