"""Count how often a device was rolled back lately, and how long it stays frozen: a part of its state."""

from dataclasses import dataclass, replace

import torch

from acclimate.adaptation.guards.record import GuardSettings
from acclimate.adaptation.method import State

__all__ = ["RollbackCount"]

_LONG_AGO = -1e12  # updates; when a rollback was that never was


@dataclass(frozen=True)
class RollbackCount:
    """Count updates and rollbacks of one device.

    A batch smaller than n_min counts as its share of n_min. Else a method that is restored every 20 windows at batch
    size 1 would never reach three rollbacks within 20 updates.

    Args:
        updates: Made since the last reset.
        progress: Updates tried in the whole life of the device, in batches of n_min or more.
        rollbacks: Progress at the last ones, oldest first; as many as freeze the device.
        frozen_windows: Windows left of the cool-down.
    """

    updates: int
    progress: float
    rollbacks: tuple[float, ...]
    frozen_windows: int

    @classmethod
    def start(cls, settings: GuardSettings) -> "RollbackCount":
        """Return the count of a device that was never seen."""
        return cls(0, 0.0, (_LONG_AGO,) * settings.rollbacks, 0)

    @classmethod
    def of(cls, state: State) -> "RollbackCount":
        """Read the count from the tensors that `tensors` made of it."""
        updates, frozen_windows = state["counts"].tolist()
        progress, *rollbacks = state["progress"].tolist()
        return cls(updates, progress, tuple(rollbacks), frozen_windows)

    def tensors(self) -> State:
        """Return the count as tensors of fixed size."""
        return {
            "counts": torch.tensor([self.updates, self.frozen_windows], dtype=torch.int64),
            "progress": torch.tensor([self.progress, *self.rollbacks], dtype=torch.float64),
        }

    def tried(self, windows: int, settings: GuardSettings) -> "RollbackCount":
        """Return the count after a batch of so many windows was computed."""
        return replace(self, progress=self.progress + min(1.0, windows / max(1, settings.n_min)))

    def rolled_back(self, settings: GuardSettings) -> "RollbackCount":
        """Return the count after a rollback now: frozen, if there were too many within too few updates."""
        last = (*self.rollbacks[1:], self.progress)
        if self.progress - last[0] >= settings.per_updates:
            return replace(self, rollbacks=last)
        return replace(RollbackCount.start(settings), progress=self.progress, frozen_windows=settings.cool_down_windows)

    def thawed_by(self, windows: int) -> "RollbackCount":
        """Return the count after the source answered so many windows of a frozen device."""
        return replace(self, frozen_windows=max(0, self.frozen_windows - windows))
