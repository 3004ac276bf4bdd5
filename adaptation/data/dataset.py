"""Windows of a source and a target as the rest of the code knows them: arrays, names and what was selected.

Windows stay raw: the transform (``signedlog`` for features over many decades) and the scaling belong to the network.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Dataset", "Split", "Transform"]

Transform = Literal["none", "signedlog"]


@dataclass(frozen=True, eq=False)
class Split:
    """Windows of one side, group after group, each group in stream order.

    Attributes:
        windows: (n, channels, length) float32, raw and finite.
        labels: (n,) int64 in 0..classes-1.
        groups: (n,) text; rows of one group are contiguous.
        rows: (n,) int64, the row in the stored file.
        dropped: Rows with label -1 that were left out.
    """

    windows: NDArray[np.float32]
    labels: NDArray[np.int64]
    groups: NDArray[np.str_]
    rows: NDArray[np.int64]
    dropped: int = 0

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    def streams(self) -> Iterator[tuple[str, slice]]:
        """Yield each group's name and its slice of the arrays, in stored order."""
        starts = np.flatnonzero(np.concatenate([[True], self.groups[1:] != self.groups[:-1]]))
        for start, stop in zip(starts, [*starts[1:], len(self)], strict=True):
            yield str(self.groups[start]), slice(int(start), int(stop))


@dataclass(frozen=True, eq=False)
class Dataset:
    """A labelled source, perhaps a target, and what the numbers mean.

    Attributes:
        name: Short name of the data for reports.
        source: Rows to train on.
        target: Rows to stream, or None.
        channel_names: One per channel of the source.
        class_names: One per class.
        transform: The transform that the network applies to raw windows first.
        group_key: The key whose values name the groups.
        sampling_rate_hz: The sampling rate of the windows, where it is known.
        selection: The options that made the selection, for manifests and reports.
        unsafe_augmentations: Changes of a window that the task forbids, see `acclimate.adaptation.alignment.views`.
        step_samples: Samples from the start of one window to the start of the next, where that is known.
    """

    name: str
    source: Split
    target: Split | None
    channel_names: tuple[str, ...]
    class_names: tuple[str, ...]
    transform: Transform
    group_key: str
    sampling_rate_hz: float | None
    selection: dict[str, str]
    unsafe_augmentations: tuple[str, ...] = ()
    step_samples: int | None = None

    @property
    def channels(self) -> int:
        return int(self.source.windows.shape[1])

    @property
    def length(self) -> int:
        return int(self.source.windows.shape[2])

    @property
    def classes(self) -> int:
        return len(self.class_names)
