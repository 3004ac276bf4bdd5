"""The selection language of the command line: which stored rows belong to the source, which to a target.

    selector   = condition { ";" condition }          all conditions must hold
    condition  = key "=" item { "," item }            any item may match
    item       = value | low "-" high                 integers, both ends included

``device=0-6,10-14`` selects seven and five devices; ``station=0,3,4; year=2013`` joins two conditions. A key that holds
text is compared with the item as written. An item that matches no stored row is an error: it is a typing mistake more
often than a wish.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.adaptation.errors import ConfigError

__all__ = ["Condition", "Item", "Selector", "match_rows", "parse_integers", "parse_selector", "summarise_values"]

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ITEM = re.compile(r"(-?[0-9]{1,18})(?:-(-?[0-9]{1,18}))?")


@dataclass(frozen=True)
class Item:
    """One alternative of a condition; ``low`` and ``high`` are None where the text is not an integer or range."""

    text: str
    low: int | None
    high: int | None


@dataclass(frozen=True)
class Condition:
    """A key of the file and the values of it that are wanted."""

    key: str
    items: tuple[Item, ...]

    def __str__(self) -> str:
        return f"{self.key}={','.join(item.text for item in self.items)}"


@dataclass(frozen=True)
class Selector:
    """Conditions that must all hold; the first key is the one that groups default to."""

    conditions: tuple[Condition, ...]

    @property
    def key(self) -> str:
        return self.conditions[0].key

    def __str__(self) -> str:
        return ";".join(map(str, self.conditions))


def parse_selector(text: str) -> Selector:
    """Read a selector such as ``device=0-6,10-14`` or ``station=0,3;year=2013``.

    Raises:
        ConfigError: A condition lacks its key or values, a range runs backwards, or a key comes twice.

    >>> str(parse_selector("device = 1-5, 7 ; year=2013"))
    'device=1-5,7;year=2013'
    >>> parse_selector("load=0").key
    'load'
    """
    conditions = tuple(_parse_condition(part, text) for part in text.split(";"))
    keys = [condition.key for condition in conditions]
    repeated = sorted({key for key in keys if keys.count(key) > 1})
    if repeated:
        raise ConfigError(
            f"selector {text!r} names key {repeated[0]!r} twice; all conditions must hold, so list the values "
            f"in one condition: {repeated[0]}=1,2-4"
        )
    return Selector(conditions)


def parse_integers(text: str) -> tuple[int, ...]:
    """Read a list of integers with ranges, in the order given; the channel options use it.

    Raises:
        ConfigError: An item is neither an integer of 0 to 9999 nor a range of them, or a number comes twice.

    >>> parse_integers("0,2-4")
    (0, 2, 3, 4)
    """
    numbers: list[int] = []
    for part in text.split(","):
        item = _parse_item(part.strip(), text)
        if item.low is None or item.high is None or not 0 <= item.low <= item.high < 10_000:
            raise ConfigError(f"expected numbers such as 0,1,2 or 0-2, each from 0 to 9999, got {text!r}")
        numbers.extend(range(item.low, item.high + 1))
    if len(set(numbers)) != len(numbers):
        raise ConfigError(f"a number comes twice in {text!r}; name each one once")
    return tuple(numbers)


def match_rows(selector: Selector, keys: Mapping[str, NDArray[np.generic]]) -> NDArray[np.int64]:
    """Give the stored row indices that fulfil a selector, ascending.

    Args:
        selector: The conditions to match.
        keys: Every key that the selector names, each of shape (n,).

    Raises:
        ConfigError: An item matches no row, or no row fulfils all conditions.
    """
    wanted: NDArray[np.bool_] | None = None
    for condition in selector.conditions:
        values = keys[condition.key]
        matched = np.zeros(values.shape, dtype=np.bool_)
        for item in condition.items:
            hit = _match_item(item, values)
            if not hit.any():
                listed = summarise_values(values)
                raise ConfigError(f"{condition.key}={item.text} matches no row; values of {condition.key!r}: {listed}")
            matched |= hit
        wanted = matched if wanted is None else wanted & matched
    rows = np.flatnonzero(wanted) if wanted is not None else np.empty(0, dtype=np.int64)
    if rows.size == 0:
        listed = "; ".join(f"{c.key!r}: {summarise_values(keys[c.key])}" for c in selector.conditions)
        raise ConfigError(f"selector {str(selector)!r} is empty: no row fulfils all its conditions; values of {listed}")
    return rows.astype(np.int64)


def summarise_values(values: NDArray[np.generic], limit: int = 12) -> str:
    """List the distinct values for an error text, runs of integers as ranges, at most ``limit`` pieces.

    >>> summarise_values(np.array([0, 1, 2, 3, 10, 12]))
    '0-3, 10, 12'
    """
    distinct = np.unique(values)
    if distinct.dtype.kind in "iu":
        breaks = np.flatnonzero(np.diff(distinct) > 1) + 1
        runs = np.split(distinct, breaks)
        pieces = [str(run[0]) if run.size == 1 else f"{run[0]}-{run[-1]}" for run in runs if run.size]
    else:
        pieces = [str(value) for value in distinct[: limit + 1]]
    if len(pieces) > limit:
        return ", ".join(pieces[:limit]) + f", ... (up to {distinct[-1]})"
    return ", ".join(pieces) if pieces else "none"


def _parse_condition(part: str, text: str) -> Condition:
    key, equals, listed = part.partition("=")
    key = key.strip()
    if not equals or not _KEY.fullmatch(key):
        raise ConfigError(f"expected KEY=VALUES such as device=1-5,7, got {part.strip()!r} in selector {text!r}")
    return Condition(key, tuple(_parse_item(item.strip(), text) for item in listed.split(",")))


def _parse_item(item: str, text: str) -> Item:
    if not item:
        raise ConfigError(f"an empty value in {text!r}; write values such as 1-5,7 without stray commas")
    found = _ITEM.fullmatch(item)
    if not found:
        return Item(item, None, None)
    low = int(found[1])
    high = int(found[2]) if found[2] is not None else low
    if high < low:
        raise ConfigError(f"range {item!r} in {text!r} runs backwards; write {high}-{low}")
    return Item(item, low, high)


def _match_item(item: Item, values: NDArray[np.generic]) -> NDArray[np.bool_]:
    if values.dtype.kind in "US":
        return np.asarray(values.astype(np.str_) == item.text, dtype=np.bool_)
    if item.low is None or item.high is None:
        return np.zeros(values.shape, dtype=np.bool_)
    numbers = values.astype(np.float64) if values.dtype.kind in "fb" else values.astype(np.int64)
    return np.asarray((numbers >= item.low) & (numbers <= item.high), dtype=np.bool_)
