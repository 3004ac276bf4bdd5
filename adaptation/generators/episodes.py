"""Episodes of meta-training: stretches of labelled source windows, shifted as a device might shift them.

An episode is one device of the source with one shift: in a fifth of them none, else a kind or mixture of the
simulator's tuning half at a severity between 1 and 5. Half of the episodes are stretches in stored order, which is how
sensors speak, half are windows in random order. What is drawn depends on the seed and the episode's number alone, so a
run that was killed goes on with the very episodes that it would have met.

RECONSTRUCTED: the papers draw images of known domains; stretches in order and the shares are ours.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptation.corruptions import TUNING, TUNING_MIXTURES, applicable, centre_and_scale, corrupt
from adaptation.errors import DataError
from adaptation.train import hold_out

__all__ = ["CLEAN_SHARE", "Episodes", "Recordings", "part_groups"]

CLEAN_SHARE = 0.2
_ORDERED_SHARE = 0.5
_SEVERITIES = (1.0, 5.0)


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
        seed: Of all draws.
        clean_share: Share of episodes without shift, 0 to 1.
    """

    def __init__(
        self,
        recordings: Recordings,
        scale_from: NDArray[np.float32],
        seed: int,
        clean_share: float = CLEAN_SHARE,
    ) -> None:
        self._recordings, self._seed, self._clean_share = recordings, seed, clean_share
        self._centre, self._scale = centre_and_scale(scale_from)
        _, channels, length = recordings.windows.shape
        self._kinds = tuple(kind for kind in (*TUNING, *TUNING_MIXTURES) if applicable(kind, channels, length))
        self._members = [np.flatnonzero(recordings.groups == name) for name in np.unique(recordings.groups)]

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
        if rng.random() >= self._clean_share:
            kind, severity = self._kinds[rng.integers(len(self._kinds))], rng.uniform(*_SEVERITIES)
            windows = corrupt(windows, kind, severity, self._scale, int(rng.integers(2**31)), centre=self._centre)
        return windows, self._recordings.labels[rows]
