"""Did a method harm a group? A block bootstrap of its change, paired with the source window by window.

    (1) d_i = 1[method right on i] - 1[source right on i],  in {-1, 0, 1}
    (2) change = mean_i d_i
    (3) change* = mean over ceil(n / b) blocks of b consecutive d, drawn with replacement; 1,000 times
    (4) harmed = 97.5 % quantile of change* below 0; undecided where fewer than `LEAST_BLOCKS` blocks are drawn

Windows are numbered in the order of their recording, also where a stream brings them in another: neighbours in time are
right or wrong together, so single windows must not be drawn, and a permutation hides that without undoing it. Blocks
are circular (Politis and Romano, 1992: the end joins the start): every window is drawn equally often, so change* is
centred on the change.

The block length is the larger of sqrt(n) and the run of one true class in which the median window lies (`label_run`): a
block shorter than an activity cuts its windows loose from each other and makes the interval too narrow. The textbook
n^(1/3) is for weakly dependent data and too short here. It is at most n / `LEAST_BLOCKS`, so that there is something to
draw from. Where runs are longer than that, the interval IS too narrow and harm is called too often: a recording of a
few long activities holds little evidence, however many windows it has (simulated with three activities, harm was
called in 21 % of cases without any, with eight in 8 %, with thirty in 6 %). Results show block and run side by side.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.adaptation.errors import ConfigError, ContractError

__all__ = ["LEAST_BLOCKS", "Change", "block_length", "label_run", "paired_change", "share_interval"]

LEAST_BLOCKS = 8

_REPLICATES = 1000
_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution


@dataclass(frozen=True)
class Change:
    """Change of accuracy against the source.

    Attributes:
        mean: -1 to 1.
        low, high: Ends of its 95 % interval.
        blocks: The number of blocks that each replicate drew.
    """

    mean: float
    low: float
    high: float
    blocks: int

    @property
    def harmed(self) -> bool | None:
        """Say whether the whole interval lies below zero; None where too few blocks leave that undecided."""
        return self.high < 0.0 if self.blocks >= LEAST_BLOCKS else None  # (4)


def label_run(labels: NDArray[np.int64]) -> int:
    """Return the length of the run of one class in which the median window lies.

    Weighted by length: half of all windows lie in runs at least as long, however many short ones come between.

    Args:
        labels: (n,) in the order of recording, n at least 1.

    >>> label_run(np.repeat([0, 1, 0, 1, 0, 1], [1, 90, 2, 60, 1, 2]))
    90
    """
    ends = np.flatnonzero(np.diff(labels)) + 1
    runs = np.sort(np.diff(np.concatenate([[0], ends, [len(labels)]])))
    return int(runs[np.searchsorted(np.cumsum(runs), len(labels) / 2)])


def block_length(labels: NDArray[np.int64]) -> int:
    """Return the length of a block for windows with these true labels (n,) in the order of recording, at least 1.

    >>> block_length(np.repeat([0, 1] * 10, 30)), block_length(np.arange(100) % 2), block_length(np.repeat([0, 1], 40))
    (30, 10, 10)
    """
    n = len(labels)
    return max(1, min(max(math.ceil(math.sqrt(n)), label_run(labels)), n // LEAST_BLOCKS))


def paired_change(
    right: NDArray[np.bool_], source_right: NDArray[np.bool_], block: int, seed: int = 0, replicates: int = _REPLICATES
) -> Change:
    """Return the change of accuracy and its interval.

    Args:
        right: (n,) in the order of recording, n at least 1.
        source_right: (n,) of the source on the same windows.
        block: Windows per block, 1 to n; raising it widens the interval.
        seed: The seed for all random draws.
        replicates: Draws; raising it makes the ends of the interval steadier.

    Raises:
        ConfigError: The block is not 1 to n.
        ContractError: The two are not answers to the same windows: their lengths differ, or both are empty.

    >>> paired_change(np.array([True] * 8), np.array([True] * 8), 1)
    Change(mean=0.0, low=0.0, high=0.0, blocks=8)
    """
    if right.shape != source_right.shape or right.ndim != 1 or len(right) == 0:
        raise ContractError(
            f"expected answers of method and source to the same windows, got shapes {right.shape}, {source_right.shape}"
        )
    n = len(right)
    if not 1 <= block <= n:
        raise ConfigError(f"block: expected 1 to {n}, got {block}")
    difference = right.astype(np.int64) - source_right.astype(np.int64)  # (1)
    mean = float(difference.mean())  # (2)
    blocks = math.ceil(n / block)
    if not difference.any():
        return Change(mean, 0.0, 0.0, blocks)
    total = np.concatenate([[0], np.cumsum(np.concatenate([difference, difference[: block - 1]]))])
    sums = total[block:] - total[:-block]  # (n,), the block that begins at each window
    starts = np.random.default_rng([seed, 11]).integers(0, n, (replicates, blocks))
    draws = sums[starts].mean(axis=1) / block  # (3)
    low, high = np.quantile(draws, [0.025, 0.975])
    return Change(mean, float(low), float(high), blocks)


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
