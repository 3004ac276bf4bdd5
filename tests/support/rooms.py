"""The rooms of the code and who imports whom: ``make rooms`` prints them, `tests.test_architecture` holds them.

A house is a folder, such as ``streams``; its rooms are the folders and files that lie directly in it, and an arrow says
that one room imports another. Imports inside functions and for type checkers count like all others.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PUBLIC = ROOT / "infra" / "python"  # the package `acclimate`, which stands above the four
PACKAGES = ("adaptation", "infra", "registry", "streams")
HOUSES = ("adaptation", "registry", "streams", "streams/lab")


@dataclass(frozen=True, order=True)
class Import:
    """One name that a file imports.

    Attributes:
        path: The file, relative to the root of the code.
        line: The line of the statement, from 1.
        name: The full name of a module, or of something in a module.
    """

    path: Path
    line: int
    name: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line} imports {self.name}"

    def of(self, name: str) -> bool:
        """Say whether this is an import of that module, of something in it or below it."""
        return f"{self.name}.".startswith(f"{name}.")


def imports_in(path: Path, source: str | bytes) -> Iterator[Import]:
    """Yield everything that a file with this source imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (Import(path, node.lineno, _below(alias.name)) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (Import(path, node.lineno, _below(f"{node.module}.{alias.name}")) for alias in node.names)


def _below(name: str) -> str:
    """Return our own names as folders of the repository have them."""
    return name.removeprefix("acclimate.")


@cache
def all_imports() -> tuple[Import, ...]:
    """Return the imports of all files of the four packages."""
    found = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    paths = sorted(path for path in found if not path.is_relative_to(PUBLIC))
    return tuple(each for path in paths for each in imports_in(path.relative_to(ROOT), path.read_bytes()))


def rooms_of(house: str) -> list[str]:
    """Return the rooms of a house, sorted: folders without a suffix, files with theirs."""
    entries = [path for path in (ROOT / house).iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    return sorted(path.name for path in entries if path.name != "__init__.py")


def arrows_in(house: str, imports: Iterable[Import]) -> Mapping[tuple[str, str], tuple[Import, ...]]:
    """Return who imports whom in a house, with the imports that make each arrow."""
    rooms = {room.removesuffix(".py"): room for room in rooms_of(house)}
    depth, dotted = len(Path(house).parts), house.replace("/", ".")
    found: dict[tuple[str, str], list[Import]] = {}
    for each in imports:
        if not each.path.is_relative_to(house) or not each.of(dotted):
            continue
        here = rooms.get(each.path.with_suffix("").parts[depth])
        there = rooms.get([*each.name.split("."), ""][depth])
        if here is not None and there is not None and here != there:
            found.setdefault((here, there), []).append(each)
    return {pair: tuple(several) for pair, several in sorted(found.items())}


def circle(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return rooms that import each other in a circle, the first one also as the last; empty where there is none."""
    graph: dict[str, set[str]] = {}
    for here, there in pairs:
        graph.setdefault(here, set()).add(there)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def main() -> None:
    """Print the rooms of each house with their lines and the rooms that they import."""
    for house in HOUSES:
        rooms, arrows = rooms_of(house), arrows_in(house, all_imports())
        print(f"{house}: {len(rooms)} rooms, {len(arrows)} arrows")
        for room in rooms:
            entry = ROOT / house / room
            lines = sum(
                len(path.read_bytes().splitlines()) for path in (entry.rglob("*.py") if entry.is_dir() else [entry])
            )
            there = ", ".join(to for here, to in arrows if here == room)
            print(f"  {room:<14} {lines:>6} lines{'  -> ' if there else ''}{there}")
        if found := circle(arrows):
            print("  a circle: " + " -> ".join(found))


if __name__ == "__main__":
    main()
