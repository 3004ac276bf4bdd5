"""Labels that come later than their windows: which may be learned from, and when.

    (1) of every group's windows a share gets a label, drawn by a seed before anything is learned
    (2) the label of a group's window number n is there once window n + delay of the group has come
    (3) where a group's stream ends, what is outstanding is handed in with its end

The agent sees labels in the order of (2) and can see no other: `Arrivals` is made of the timetable alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.adaptation.errors import ConfigError

__all__ = ["Arrival", "arrivals", "labelled_rows"]


@dataclass(frozen=True, eq=False)
class Arrival:
    """The windows and labels that have come since the last call.

    Attributes:
        now: Windows of the group that have come, from 1.
        unlabelled: Rows whose windows have come, in order.
        labelled: Rows whose labels have come, in order.
    """

    now: int
    unlabelled: NDArray[np.int64]
    labelled: NDArray[np.int64]


def labelled_rows(count: int, share: float, seed: int) -> NDArray[np.int64]:
    """Return which of a group's windows get a label, in order: the nearest whole number to the share, at least 1: (1).

    Raises:
        ConfigError: The share is not above 0 to 1, or no window is given.
    """
    if not 0 < share <= 1 or count < 1:
        raise ConfigError(f"label share: expected above 0 to 1 of at least one window, got {share} of {count}")
    chosen = np.random.default_rng([seed, 21]).permutation(count)[: max(1, round(share * count))]
    return np.sort(chosen).astype(np.int64)


def arrivals(count: int, labelled: NDArray[np.int64], delay: int, every: int) -> Iterator[Arrival]:
    """Yield what comes in stretches of windows, then what is handed in at the end: (2), (3).

    Args:
        count: Windows of the group.
        labelled: Rows that get a label, in order.
        delay: Windows between a window and its label, 0 or more.
        every: Windows per stretch, at least 1.

    Raises:
        ConfigError: Delay or stretch are out of range.

    >>> [(a.now, a.labelled.tolist()) for a in arrivals(6, np.array([0, 3, 5]), delay=2, every=2)]
    [(2, []), (4, [0]), (6, [3]), (6, [5])]
    """
    if delay < 0 or every < 1:
        raise ConfigError(f"delay, every: expected at least 0 and 1, got {delay}, {every}")
    known = 0
    for start in range(0, count, every):
        now = min(start + every, count)
        due = int(np.searchsorted(labelled, now - delay))  # rows below now - delay
        yield Arrival(now, np.arange(start, now), labelled[known:due] if due > known else labelled[:0])
        known = max(known, due)
    if known < len(labelled):
        yield Arrival(count, np.arange(0), labelled[known:])
