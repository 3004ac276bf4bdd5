"""RoTTA's memory: 64 windows, balanced over predicted classes, recent and sure ones first.

Category-balanced sampling with timeliness and uncertainty (CSTU), after "Robust Test-Time Adaptation in Dynamic
Scenarios", Yuan et al., CVPR 2023. All of it is tensors of fixed size; a free place has class -1.

    (1) score = 1 / (1 + exp(-age / N)) + H / ln K          high: old and unsure
    (2) the class of the newcomer has fewer than N / K places, and one is free: take it
    (3) has fewer, and none is free: compare with the worst of the largest classes
    (4) else: compare with the worst of its own class
    (5) the newcomer takes the place of a worst that scores above what it scores itself, and is dropped otherwise
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from acclimate.adaptation.method import State

__all__ = ["Cstu"]


@dataclass(frozen=True, eq=False)
class Cstu:
    """The memory.

    Attributes:
        windows: (N, C, ...) raw.
        classes: (N,) predicted, -1 where free.
        entropies: (N,) nats, at entry.
        ages: (N,) windows since entry.
    """

    windows: Tensor
    classes: Tensor
    entropies: Tensor
    ages: Tensor

    @staticmethod
    def empty(capacity: int, window: Tensor) -> "Cstu":
        """Return a memory of `capacity` places for windows like `window` (C, ...)."""
        return Cstu(
            windows=torch.zeros((capacity, *window.shape), dtype=window.dtype),
            classes=torch.full((capacity,), -1),
            entropies=torch.zeros(capacity),
            ages=torch.zeros(capacity, dtype=torch.int64),
        )

    @staticmethod
    def of(state: State) -> "Cstu":
        """Return the memory inside a state."""
        return Cstu(*(state[f"memory/{name}"] for name in ("windows", "classes", "entropies", "ages")))

    def state(self) -> dict[str, Tensor]:
        """Return the memory's part of a state: ``memory/windows`` and so on."""
        return {f"memory/{name}": value for name, value in vars(self).items()}

    def with_windows(self, windows: Tensor, classes: Tensor, entropies: Tensor, class_count: int) -> "Cstu":
        """Return the memory after windows (n, C, ...) in stream order, with predicted classes and entropies (n,)."""
        capacity, share = len(self.classes), len(self.classes) / class_count
        held, unsure, ages = self.classes.tolist(), self.entropies.tolist(), self.ages.tolist()
        comes_from: dict[int, int] = {}  # place -> row of `windows`
        for row, (cls, entropy) in enumerate(zip(classes.tolist(), entropies.tolist(), strict=True)):
            place = _place(held, unsure, ages, cls, entropy, share, capacity, class_count)
            if place is not None and math.isfinite(entropy):
                held[place], unsure[place], ages[place] = cls, entropy, 0
                comes_from[place] = row
            ages = [age + (kind >= 0) for age, kind in zip(ages, held, strict=True)]
        changed = replace(
            self, classes=torch.tensor(held), entropies=torch.tensor(unsure), ages=torch.tensor(ages, dtype=torch.int64)
        )
        if not comes_from:
            return changed
        places, rows = torch.tensor(list(comes_from)), torch.tensor(list(comes_from.values()))
        return replace(changed, windows=self.windows.index_copy(0, places, windows[rows].to(self.windows.dtype)))


def _place(
    held: list[int],
    unsure: list[float],
    ages: list[int],
    cls: int,
    entropy: float,
    share: float,
    capacity: int,
    class_count: int,
) -> int | None:
    """Return where the newcomer goes, or None."""
    rivals = [cls]  # (4)
    if held.count(cls) < share:
        if -1 in held:
            return held.index(-1)  # (2)
        counts = [held.count(k) for k in range(class_count)]
        rivals = [k for k, count in enumerate(counts) if count == max(counts)]  # (3)

    def score(age: int, entropy: float) -> float:
        return 1 / (1 + math.exp(-age / capacity)) + entropy / math.log(class_count)  # (1)

    worst, place = max((score(ages[i], unsure[i]), i) for i, kind in enumerate(held) if kind in rivals)
    return place if worst > score(0, entropy) else None  # (5)
