"""Run one method over one stream. It does not take labels, so a method cannot see the truth."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from acclimate.adaptation.errors import ConfigError, ContractError
from acclimate.adaptation.method import Method, Step, state_bytes

__all__ = ["Answers", "balanced_rows", "batches", "run_stream"]

_SOURCE = "source"  # the rung of a receipt that adapted nothing


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers of a method, and its work.

    Attributes:
        probabilities: (n, K) float32, in the order of arrival.
        updates, resets, selected: Sums over all batches, see `Step`.
        seconds: Time in the method alone, on the given clock.
        state_bytes: Largest size of the device's state after any batch.
        adapted: Windows that another rung than the source answered, by the receipts; None for methods without receipts.
    """

    probabilities: NDArray[np.float32]
    updates: int
    resets: int
    selected: int
    seconds: float
    state_bytes: int
    adapted: int | None = None


def run_stream(method: Method, windows: NDArray[np.float32], batch_size: int, clock: Callable[[], float]) -> Answers:
    """Answer all windows from a fresh state, batch by batch.

    Args:
        method: Configured method.
        windows: (n, C, L) in the order of arrival, n at least 1.
        batch_size: Windows per batch; the last batch may be smaller.
        clock: A function that gives seconds.

    Raises:
        ConfigError: No window is given, or the batch size is below 1.
        ContractError: Receipts do not account for the windows of their batch.
    """
    if batch_size < 1 or len(windows) == 0:
        raise ConfigError(f"expected at least one window and batches of at least 1, got {len(windows)}, {batch_size}")
    given = torch.from_numpy(np.ascontiguousarray(windows))
    parts = []
    updates = resets = selected = 0
    adapted: int | None = None
    started = clock()
    state = method.reset()
    seconds = clock() - started
    largest = state_bytes(state)
    for part in batches(len(windows), batch_size):
        started = clock()
        state, step = method.adapt_batch(state, given[part])
        seconds += clock() - started
        parts.append(step.probabilities)
        updates, resets, selected = updates + step.updates, resets + step.resets, selected + step.selected
        largest = max(largest, state_bytes(state))
        if step.receipts:
            adapted = (adapted or 0) + _adapted(step, part.stop - part.start)
    probabilities = torch.cat(parts).numpy().astype(np.float32)
    return Answers(probabilities, updates, resets, selected, seconds, largest, adapted)


def _adapted(step: Step, windows: int) -> int:
    """Return how many windows of a batch its receipts give to another rung than the source."""
    answered = [(str(receipt["rung"]), int(receipt["windows"] or 0)) for receipt in step.receipts]
    told = sum(count for _, count in answered)
    if told != windows:
        raise ContractError(f"the receipts of a batch account for {told} windows, expected {windows}")
    return sum(count for rung, count in answered if rung != _SOURCE)


def batches(count: int, size: int) -> Iterator[slice]:
    """Yield consecutive slices of ``size`` windows; the last may be shorter.

    >>> [(part.start, part.stop) for part in batches(5, 2)]
    [(0, 2), (2, 4), (4, 5)]
    """
    for start in range(0, count, size):
        yield slice(start, min(count, start + size))


def balanced_rows(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Draw about ``count`` rows, every class in equal number as far as it has so many, in stored order.

    >>> balanced_rows(np.array([0, 0, 0, 0, 1]), 4, seed=0).tolist()[-1]
    4
    """
    rng = np.random.default_rng([seed, 13])
    classes = np.unique(labels)
    each = -(-count // len(classes))
    chosen = [rng.permutation(np.flatnonzero(labels == label))[:each] for label in classes]
    return np.sort(np.concatenate(chosen))
