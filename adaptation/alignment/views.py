"""Two looks at the same window, between which nothing changes that the task is about.

Each kind of change is safe for a task or not: a gain hides an alarm level, a shift in time a moment. The description
of the recordings says which are not (``unsafe_augmentations``); the others are used, each window with draws of its own,
in source standard deviations:

    jitter      noise of 0.1                                           every value
    gain        N(1, 0.15)                                             each channel
    shift       up to a tenth of the window, earlier or later          the window
    mask        a stretch of 5 to 15 % of the window set to the mean   the window
    dropout     set to the mean with probability 0.1                   each channel
    corruption  each feature with probability 0.5 that of another      rows without a time axis
                window, after SCARF (Bahri et al., ICLR 2022)

The first five are for windows in time, the last for rows. Kinds and strengths are RECONSTRUCTED: the paper on alignment
was written for images, and its own could not be read.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import torch
from torch import Tensor

from acclimate.adaptation.data.sensor_augmentations import jitter, scaling, time_shift
from acclimate.adaptation.errors import ConfigError

__all__ = ["VIEWS", "Views", "channel_dropout", "feature_corruption", "time_mask"]

_LARGEST_SHIFT = 0.1
_MASK = (0.05, 0.15)
_DROPOUT = 0.1
_CORRUPTED = 0.5

View = Callable[[Tensor, torch.Generator], Tensor]


def time_mask(units: Tensor, generator: torch.Generator) -> Tensor:
    """Return units (n, C, L) with a stretch of each window at the source mean."""
    length = units.shape[-1]
    share = _MASK[0] + (_MASK[1] - _MASK[0]) * torch.rand(len(units), 1, generator=generator)
    wide = (share * length).round().clamp(min=1)
    start = (torch.rand(len(units), 1, generator=generator) * (length - wide + 1)).floor()
    at = torch.arange(length)
    hidden = (at >= start) & (at < start + wide)  # (n, L)
    return units.masked_fill(hidden[:, None, :], 0.0)


def channel_dropout(units: Tensor, generator: torch.Generator) -> Tensor:
    """Return units (n, C, L) with some channels at the source mean; a window never loses all of them."""
    n, channels = units.shape[:2]
    dropped = torch.rand(n, channels, generator=generator) < _DROPOUT
    dropped &= ~dropped.all(dim=1, keepdim=True)
    return units.masked_fill(dropped[:, :, None], 0.0)


def feature_corruption(units: Tensor, generator: torch.Generator) -> Tensor:
    """Return rows (n, F, 1) with about half of their features from other rows of the batch, each from its own."""
    n, features = units.shape[:2]
    other = torch.randint(0, n, (n, features), generator=generator)
    replaced = torch.rand(n, features, generator=generator) < _CORRUPTED
    return torch.where(replaced[:, :, None], units.gather(0, other[:, :, None].expand_as(units)), units)


def _shift(units: Tensor, generator: torch.Generator) -> Tensor:
    return time_shift(units, generator, max(1, round(_LARGEST_SHIFT * units.shape[-1])))


_IN_TIME: Mapping[str, View] = {
    "jitter": partial(jitter, sigma=0.1),
    "gain": partial(scaling, sigma=0.15),
    "shift": _shift,
    "mask": time_mask,
    "dropout": channel_dropout,
}
_ROWS: Mapping[str, View] = {"corruption": feature_corruption}
VIEWS = (*_IN_TIME, *_ROWS)


class Views:
    """The changes that are safe for a task.

    Args:
        length: Samples of a window, L; 1 for rows without a time axis.
        unsafe: Kinds that the task forbids.

    Raises:
        ConfigError: A kind is unknown, or none is left.
    """

    def __init__(self, length: int, unsafe: Iterable[str] = ()) -> None:
        unknown = sorted(set(unsafe) - set(VIEWS))
        if unknown:
            raise ConfigError(f"unsafe augmentations: expected some of {', '.join(VIEWS)}, got {', '.join(unknown)}")
        known = _IN_TIME if length > 1 else _ROWS
        self._chosen = {name: view for name, view in known.items() if name not in set(unsafe)}
        if not self._chosen:
            raise ConfigError(
                f"all augmentations ({', '.join(known)}) are unsafe for this task: nothing is left to learn"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Kinds that are used."""
        return tuple(self._chosen)

    def draw(self, units: Tensor, generator: torch.Generator) -> Tensor:
        """Return one view of units (n, C, L)."""
        for view in self._chosen.values():
            units = view(units, generator)
        return units
