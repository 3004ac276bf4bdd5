"""One group's recording as a domain to learn: stretches to learn from, and stretches between them to be judged on.

Neighbouring windows overlap or are alike, so single windows must not be drawn; and the end of a recording may hold
classes that its beginning lacks. So stretches take turns, and windows at their borders are in neither.
"""

import itertools

import numpy as np
from numpy.typing import NDArray

from acclimate.adaptation.errors import DataError

__all__ = ["alternate_stretches"]

_STRETCHES = 20
_LEAST = 4


def alternate_stretches(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows to learn from and those to judge on, of a recording of so many windows, in order.

    Twenty stretches, or fewer so that each has at least four windows; learning begins.

    Raises:
        DataError: There are fewer than eight windows.

    >>> [rows.tolist() for rows in alternate_stretches(12)]
    [[0, 1, 2, 8, 9, 10], [4, 5, 6]]
    """
    stretches = min(_STRETCHES, count // _LEAST)
    if stretches < 2:
        raise DataError(f"expected at least {2 * _LEAST} windows of each group, got {count}", "too_few_windows")
    edges = np.linspace(0, count, stretches + 1).round().astype(int)
    kept = [np.arange(start, stop - 1) for start, stop in itertools.pairwise(edges)]
    return np.concatenate(kept[0::2]).astype(np.int64), np.concatenate(kept[1::2]).astype(np.int64)
