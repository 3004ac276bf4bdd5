"""Prediction-balanced reservoir: a fixed number of windows of a device, as even over classes and time as it can be.

After "NOTE: Robust Continual Test-time Adaptation Against Temporal Correlation", Gong et al., NeurIPS 2022. A window
comes with its predicted class c. While there is room it enters. Then, with m_c windows of the class held and n_c seen:

    (1) c is not among the classes with most windows held: it replaces a random window of a random one of those
    (2) c is one of those: with probability m_c / n_c it replaces a random window of c, else it is dropped

(2) is reservoir sampling within a class, so that all its windows in time are held with the same probability.
"""

from collections import Counter

import torch
from torch import Tensor

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.method import State

__all__ = ["offer", "start_reservoir"]

_FREE = -1


def start_reservoir(capacity: int, shape: torch.Size, classes: int, seed: int) -> dict[str, Tensor]:
    """Return an empty reservoir.

    Args:
        capacity: Windows that it holds, at least 1.
        shape: The shape of one window, (C, L).
        classes: K.
        seed: The seed of its random choices.

    Returns:
        ``memory/windows`` (capacity, C, L), ``memory/labels`` (capacity,) with -1 for free, ``memory/seen`` (K,) and
        ``memory/generator``.

    Raises:
        ConfigError: The capacity is out of range.
    """
    if capacity < 1:
        raise ConfigError(f"capacity: expected at least 1 window, got {capacity}")
    return {
        "memory/windows": torch.zeros(capacity, *shape),
        "memory/labels": torch.full((capacity,), _FREE, dtype=torch.int64),
        "memory/seen": torch.zeros(classes, dtype=torch.int64),
        "memory/generator": torch.Generator().manual_seed(seed).get_state(),
    }


def offer(memory: State, windows: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Offer windows (n, C, L) with classes (n,), one after the other, and return the reservoir after them.

    A class may be any whole number from 0, such as that of a pair of class and device, and need not have been expected.
    """
    held: list[int] = memory["memory/labels"].tolist()
    seen: list[int] = memory["memory/seen"].tolist()
    generator = torch.Generator()
    generator.set_state(memory["memory/generator"])
    entered: dict[int, int] = {}  # place -> number of the window
    seen += [0] * (int(labels.max()) + 1 - len(seen) if len(labels) else 0)
    for number, label in enumerate(labels.tolist()):
        seen[label] += 1
        place = _place(held, label, seen[label], generator)
        if place is not None:
            held[place], entered[place] = label, number
    new = {**memory, "memory/seen": torch.tensor(seen), "memory/generator": generator.get_state()}
    if entered:
        new["memory/windows"] = memory["memory/windows"].clone()
        new["memory/windows"][list(entered)] = windows[list(entered.values())]
        new["memory/labels"] = torch.tensor(held)
    return new


def _place(held: list[int], label: int, seen: int, generator: torch.Generator) -> int | None:
    """Return the place of a window of this class, or None where it is dropped."""
    if _FREE in held:
        return held.index(_FREE)
    counts = Counter(held)
    most = max(counts.values())
    largest = sorted(other for other, count in counts.items() if count == most)
    if label in largest:  # (2)
        if float(torch.rand((), generator=generator)) >= most / seen:
            return None
        largest = [label]
    victim = largest[_draw(len(largest), generator)]  # (1)
    places = [place for place, other in enumerate(held) if other == victim]
    return places[_draw(len(places), generator)]


def _draw(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator)) if count > 1 else 0
