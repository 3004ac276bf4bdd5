"""Labelled windows of devices, as a learner draws batches from them."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Labelled", "joined"]


@dataclass(frozen=True, eq=False)
class Labelled:
    """Windows with labels.

    Attributes:
        windows: (n, C, L) raw, n may be 0.
        labels: (n,).
        devices: (n,) numbers of devices from 0; 0 is the source.
    """

    windows: Tensor
    labels: Tensor
    devices: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Tensor | slice) -> "Labelled":
        """Return some rows, by number, mask or slice."""
        return Labelled(self.windows[rows], self.labels[rows], self.devices[rows])

    def draw(self, count: int, generator: torch.Generator) -> "Labelled":
        """Return so many rows drawn evenly, with repetition, from at least one."""
        return self.take(torch.randint(0, len(self), (count,), generator=generator))


def joined(first: Labelled, *others: Labelled) -> Labelled:
    """Return all rows, one after the other."""
    parts = (first, *others)
    windows, labels, devices = (
        torch.cat([getattr(p, kind) for p in parts]) for kind in ("windows", "labels", "devices")
    )
    return Labelled(windows, labels, devices)
