"""Episodes of meta-training: stretches of labelled source windows, shifted as a device might shift them.

An episode is one device of the source with one shift: in a fifth of them none, else a kind or mixture of the
simulator's tuning half at a severity between 1 and 5. Half of the episodes are stretches in stored order, which is how
sensors speak, half are windows in random order. What is drawn depends on the seed and the episode's number alone, so a
run that was killed goes on with the very episodes that it would have met.

RECONSTRUCTED: the papers draw images of known domains; stretches in order and the shares are ours.

Fixed streams show what a generator costs where nothing has shifted: `unshifted_streams`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acclimate.adaptation.data.corruptions import TUNING, TUNING_MIXTURES, applicable, centre_and_scale, corrupt
from acclimate.adaptation.errors import DataError
from acclimate.adaptation.model.robust import spread_rows
from acclimate.adaptation.model.train import hold_out

__all__ = ["CLEAN_SHARE", "STRETCHES", "Episodes", "Recordings", "part_groups", "stretches", "unshifted_streams"]

CLEAN_SHARE = 0.2
_ORDERED_SHARE = 0.5
_SEVERITIES = (1.0, 5.0)
STRETCHES = 10  # of one device, for a look at harm
_MOST_DEVICES = 16


@dataclass(frozen=True, eq=False)
class Recordings:
    """Labelled source windows (n, C, L), labels (n,) and groups (n,), in stored order."""

    windows: NDArray[np.float32]
    labels: NDArray[np.int64]
    groups: NDArray[np.str_]

    def rows(self, chosen: NDArray[np.bool_]) -> "Recordings":
        """Return some of the windows."""
        return Recordings(self.windows[chosen], self.labels[chosen], self.groups[chosen])


def part_groups(source: Recordings, seed: int) -> tuple[Recordings, Recordings]:
    """Return what is meta-trained on, and what decides when to stop: whole groups where there are at least five.

    Raises:
        DataError: The source is too small to hold anything out.
    """
    held_out, _ = hold_out(source.labels, source.groups, seed)
    if not held_out.any() or held_out.all():
        raise DataError("the source is too small to hold out a part that decides when to stop", "too_few_windows")
    return source.rows(~held_out), source.rows(held_out)


class Episodes:
    """Draws episodes from recordings.

    Args:
        recordings: Labelled source windows.
        scale_from: All source windows, (n, C, L): the unit that shifts are measured in.
        seed: The seed for all random draws.
    """

    def __init__(self, recordings: Recordings, scale_from: NDArray[np.float32], seed: int) -> None:
        self._recordings, self._seed = recordings, seed
        self._centre, self._scale = centre_and_scale(scale_from)
        _, channels, length = recordings.windows.shape
        self._kinds = tuple(kind for kind in (*TUNING, *TUNING_MIXTURES) if applicable(kind, channels, length))
        self._members = _members(recordings)

    def draw(self, numbers: Iterable[int], windows: int) -> tuple[Tensor, Tensor]:
        """Return the episodes of these numbers: windows (e, n, C, L) and labels (e, n), n windows each."""
        drawn = [self._one(number, windows) for number in numbers]
        return (
            torch.from_numpy(np.stack([shifted for shifted, _ in drawn])),
            torch.from_numpy(np.stack([labels for _, labels in drawn])),
        )

    def _one(self, number: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        rng = np.random.default_rng([self._seed, 29, number])
        members = self._members[rng.integers(len(self._members))]
        if rng.random() < _ORDERED_SHARE:
            rows = members[(rng.integers(members.size) + np.arange(count)) % members.size]
        else:
            rows = rng.choice(members, count, replace=count > members.size)
        windows = self._recordings.windows[rows]
        if rng.random() >= CLEAN_SHARE:
            kind, severity = self._kinds[rng.integers(len(self._kinds))], rng.uniform(*_SEVERITIES)
            windows = corrupt(windows, kind, severity, self._scale, int(rng.integers(2**31)), centre=self._centre)
        return windows, self._recordings.labels[rows]


def unshifted_streams(recordings: Recordings, seed: int, length: int) -> tuple[Tensor, Tensor]:
    """Return windows (2 d, n, C, L) and labels (2 d, n) as recorded, of all devices, or 16 spread over more.

    Args:
        recordings: Labelled source windows.
        seed: The seed of the order in the second half.
        length: Windows of a stretch; n = 10 length.

    Returns:
        First each of d devices in recorded order, by ten stretches, then each shuffled.
    """
    members = _members(recordings)
    chosen = spread_rows(np.arange(len(members)), _MOST_DEVICES)
    ordered = [members[device][stretches(members[device].size, length)] for device in chosen]
    rows = np.stack([*ordered, *(np.random.default_rng([seed, 31, i]).permutation(r) for i, r in enumerate(ordered))])
    return torch.from_numpy(recordings.windows[rows]), torch.from_numpy(recordings.labels[rows])


def stretches(count: int, length: int) -> NDArray[np.int64]:
    """Return the rows of ten stretches of a length, spread evenly over a count of rows; round where it is shorter.

    >>> stretches(100, 3)[:7].tolist()
    [0, 1, 2, 10, 11, 12, 21]
    """
    starts = np.linspace(0, max(count - length, 0), STRETCHES).astype(np.int64)
    rows: NDArray[np.int64] = (starts[:, None] + np.arange(length)).ravel() % count
    return rows


def _members(recordings: Recordings) -> list[NDArray[np.int64]]:
    return [np.flatnonzero(recordings.groups == name) for name in np.unique(recordings.groups)]
