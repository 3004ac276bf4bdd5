"""ADWIN on delayed error bits: has the error rate of this device changed, and what is it now?

When labels come, late and in any number, each answer turns out right (0) or wrong (1). ADWIN keeps the longest run of
recent bits that looks like one rate. With the window cut into an older part of n0 and a newer part of n1 bits:

    (1) cut where |mean0 - mean1| > eps
    (2) eps = sqrt(2 m v ln(2 ln n / delta)) + 2/3 m ln(2 ln n / delta)
    (3) m = 1 / (n0 - l + 1) + 1 / (n1 - l + 1),   v = variance of the window,   n = n0 + n1,   l = shortest part

Where a cut is found the oldest bits go, until no cut is left. Bits are kept in buckets of 1, 2, 4, ... bits, at most
five of a size, so a device needs O(log n) numbers: under 100 after a million bits. The mean of the window is the
current estimate of the error rate.

Bifet and Gavaldà, "Learning from Time-Changing Data with Adaptive Windowing", SIAM International Conference on Data
Mining, 2007. Constants are those of river's ADWIN, which the tests compare with; two things differ. River's loop skips
the newest bucket of each size, this looks at every boundary. River forgets the whole window after a change, this keeps
the part after the cut, as in the paper. A state here is plain integers, so it survives a restart.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from acclimate.adaptation.errors import ConfigError, DataError

__all__ = ["Adwin", "AdwinState", "Change", "from_numbers", "to_numbers"]


@dataclass(frozen=True)
class AdwinState:
    """The window of one device.

    Attributes:
        rows: Row i holds buckets of 2^i bits, oldest first, as the number of errors in each.
        bits: Taken since the reset.
        changes: Found since the reset.
    """

    rows: tuple[tuple[int, ...], ...] = ()
    bits: int = 0
    changes: int = 0

    @property
    def width(self) -> int:
        """Bits in the window."""
        return sum(len(row) << size for size, row in enumerate(self.rows))

    @property
    def error_rate(self) -> float | None:
        """Errors per answer in the window; None while it is empty."""
        return sum(map(sum, self.rows)) / self.width if self.rows else None


@dataclass(frozen=True)
class Change:
    """A change of the error rate.

    Attributes:
        before: Error rate of the window until now.
        after: Error rate of what is left of it.
        forgotten: Bits dropped from the window.
    """

    before: float
    after: float
    forgotten: int


@dataclass(frozen=True)
class Adwin:
    """The detector; one serves every device.

    Attributes:
        delta: Chance of a false change at one look, 0 to 1. Raising it finds changes sooner and cries wolf more often.
        clock: Looks once in so many bits. Raising it saves time and adds delay.
        buckets: The number of buckets of one size, at least 2. Raising it places cuts more exactly and takes memory.
        shortest: Bits of the shorter part, at least 1.
        grace: Bits before the first look.

    Raises:
        ConfigError: A value is out of range.

    >>> detector = Adwin()
    >>> state = detector.reset()
    >>> for error in [0] * 192 + [1] * 32:
    ...     state, change = detector.observe(state, error)
    >>> change
    Change(before=0.14285714285714285, after=0.5714285714285714, forgotten=168)
    """

    delta: float = 0.002
    clock: int = 32
    buckets: int = 5
    shortest: int = 5
    grace: int = 10

    def __post_init__(self) -> None:
        if not 0 < self.delta < 1:
            raise ConfigError(f"delta: expected a chance between 0 and 1, both excluded, got {self.delta}")
        if self.clock < 1 or self.buckets < 2 or self.shortest < 1 or self.grace < 0:
            raise ConfigError(
                f"ADWIN: expected clock from 1, buckets from 2, shortest from 1 and grace from 0, "
                f"got {self.clock}, {self.buckets}, {self.shortest}, {self.grace}"
            )

    def reset(self) -> AdwinState:
        """Return the state of a device without labels."""
        return AdwinState()

    def observe(self, state: AdwinState, error: int) -> tuple[AdwinState, Change | None]:
        """Take the next error bit of a device, in the order in which labels arrive.

        Raises:
            DataError: The bit is neither 0 nor 1.
        """
        if error not in (0, 1):
            raise DataError(f"error bit: expected 0 (right) or 1 (wrong), got {error}", "not_a_bit")
        rows = self._insert(state.rows, int(error))
        taken = AdwinState(rows, state.bits + 1, state.changes)
        if taken.bits % self.clock or taken.width <= self.grace:
            return taken, None
        while self._has_cut(rows):
            rows = _without_oldest(rows)
        if rows == taken.rows:
            return taken, None
        left = AdwinState(rows, taken.bits, taken.changes + 1)
        return left, Change(taken.error_rate or 0.0, left.error_rate or 0.0, taken.width - left.width)

    def _insert(self, rows: tuple[tuple[int, ...], ...], error: int) -> tuple[tuple[int, ...], ...]:
        result, carried = [], [error]
        for row in rows:
            merged = (*row, *carried)
            carried = []
            if len(merged) > self.buckets:  # the two oldest become one of twice the size, the newest of the next row
                carried, merged = [merged[0] + merged[1]], merged[2:]
            result.append(merged)
        if carried:
            result.append(tuple(carried))
        return tuple(result)

    def _has_cut(self, rows: tuple[tuple[int, ...], ...]) -> bool:
        width = sum(len(row) << size for size, row in enumerate(rows))
        errors = sum(map(sum, rows))
        rate = errors / width
        confidence = math.log(2 * math.log(width) / self.delta) if width > 1 else math.inf
        older = older_errors = 0
        for size in reversed(range(len(rows))):
            for bucket in rows[size]:
                older, older_errors = older + (1 << size), older_errors + bucket
                newer = width - older
                if older < self.shortest or newer < self.shortest:
                    continue
                m = 1 / (older - self.shortest + 1) + 1 / (newer - self.shortest + 1)  # (3)
                eps = math.sqrt(2 * m * rate * (1 - rate) * confidence) + 2 / 3 * m * confidence  # (2)
                if abs(older_errors / older - (errors - older_errors) / newer) > eps:  # (1)
                    return True
        return False


def to_numbers(state: AdwinState) -> tuple[int, ...]:
    """Return a state as a flat run of integers: bits, changes, then the length and the buckets of each row.

    >>> to_numbers(AdwinState(rows=((1, 0), (2,)), bits=4, changes=0))
    (4, 0, 2, 1, 0, 1, 2)
    """
    return (state.bits, state.changes, *(number for row in state.rows for number in (len(row), *row)))


def from_numbers(numbers: Sequence[int]) -> AdwinState:
    """Return the state that `to_numbers` wrote.

    Raises:
        DataError: The numbers do not make a state.
    """
    values = [int(number) for number in numbers]
    rows: list[tuple[int, ...]] = []
    position = 2
    while position < len(values):
        length = values[position]
        row = tuple(values[position + 1 : position + 1 + length])
        position += 1 + max(0, length)
        if length < 0 or len(row) != length or any(not 0 <= bucket <= 1 << len(rows) for bucket in row):
            raise DataError(f"ADWIN state: row {len(rows)} is damaged; reset the device's detector", "damaged_state")
        rows.append(row)
    if len(values) < 2 or min(values[:2]) < 0:
        raise DataError("ADWIN state: expected at least two counts from 0; reset the detector", "damaged_state")
    return AdwinState(tuple(rows), values[0], values[1])


def _without_oldest(rows: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    """Drop the oldest bucket, and rows that are left empty at the end."""
    kept = (*rows[:-1], rows[-1][1:])
    while kept and not kept[-1]:
        kept = kept[:-1]
    return kept
