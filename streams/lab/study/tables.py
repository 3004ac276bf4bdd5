"""The base of all studies' tables: items in groups, Markdown, and the text for a change of accuracy."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

__all__ = ["grouped", "points", "table"]

_T = TypeVar("_T")
_K = TypeVar("_K")


def grouped(items: Iterable[_T], key: Callable[[_T], _K]) -> list[tuple[_K, list[_T]]]:
    """Group by key, wherever the items stand; keys in the order of their first item."""
    found: dict[_K, list[_T]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return list(found.items())


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cells) + " |" for cells in body]
    return "\n".join(lines) + "\n"


def points(change: float | None) -> str:
    """Return a change of accuracy in percentage points, signed; empty where it is not known."""
    if change is None:
        return ""
    rounded = round(100 * change, 1)
    return "0.0" if rounded == 0 else f"{rounded:+.1f}"
