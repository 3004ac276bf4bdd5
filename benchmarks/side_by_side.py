"""Tables over several recordings from the results of `acclimate evaluate`.

Run ``python -m benchmarks.side_by_side NAME=DIR [NAME=DIR ...]`` with the folders of evaluations. For every stream,
batch size and kind of source it prints a Markdown table, one line per method and one column per recording: the change
in points of accuracy against the source of the same kind on the same windows, the mean over groups and seeds, and in
brackets the share of (group, seed) pairs whose whole 95 % interval lies below zero. Lines named ``source`` give its
accuracy. A last table gives the CPU time in the method, in microseconds per window. ``--json`` prints the same for
programs. docs/results/methods.md holds a run.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from acclimate.adaptation.methods.catalogue import METHODS
from acclimate.streams.lab.evaluate.lines import Line
from acclimate.streams.lab.evaluate.rows import SOURCE, Row
from acclimate.streams.lab.evaluate.tasks import current_name
from acclimate.streams.lab.study.recipes import PLAIN
from acclimate.streams.lab.study.tables import grouped, points, table

AS_PLAIN = "as plain"
Setting = tuple[str, int, str]  # stream, batch size, kind of source


def read_lines(path: Path) -> dict[tuple[Setting, str], Line]:
    """Return the lines of a ``results.json`` by setting and method."""
    results = json.loads(path.read_text())
    rows = [Row(**{**row, "method": current_name(row["method"])}) for row in results["rows"]]
    return {
        ((stream, size, augment), method): Line(part, len(part))
        for (stream, size, augment, method), part in grouped(
            rows, lambda row: (row.stream, row.batch_size, row.augment, row.method)
        )
    }


def change(line: Line | None, seeds: int) -> str:
    """Return a cell of a column of so many seeds: accuracy of the source, change and harm of everything else.

    Empty where nothing was run; a method that was run on fewer seeds says so.
    """
    if line is None:
        return ""
    if line.augment != PLAIN and line.rows[0].recipe == PLAIN:
        return AS_PLAIN  # `auto` chose not to augment
    if line.method == SOURCE:
        return f"{100 * line.accuracy:.1f} %"
    if line.change is None:
        return ""
    harmed = "?" if line.harmed is None else f"{100 * line.harmed:.0f} %"
    fewer = "" if line.seeds == seeds else f", {counted(line.seeds)}"
    return f"{points(line.change)} ({harmed}{fewer})"


def counted(seeds: int) -> str:
    """Return 1 seed, 3 seeds."""
    return f"{seeds} seed{'s' * (seeds != 1)}"


def filled(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table without the columns that tell nothing."""
    kept = [i for i in range(len(head)) if i == 0 or any(row[i] not in ("", AS_PLAIN) for row in body)]
    return table([head[i] for i in kept], [[row[i] for i in kept] for row in body])


def render(found: Mapping[str, Mapping[tuple[Setting, str], Line]]) -> str:
    """Return all tables."""
    keys = list(dict.fromkeys(key for lines in found.values() for key in lines))
    methods = [method for method in METHODS if any(method == name for _, name in keys)]
    parts = []
    for setting in dict.fromkeys(setting for setting, _ in keys):
        stream, size, augment = setting
        seeds = {
            name: max((line.seeds for (s, _), line in lines.items() if s == setting), default=0)
            for name, lines in found.items()
        }
        body = [
            [method, *(change(lines.get((setting, method)), seeds[name]) for name, lines in found.items())]
            for method in methods
            if any((setting, method) in lines for lines in found.values())
        ]
        if all(cell in ("", AS_PLAIN) for row in body for cell in row[1:]):
            continue  # `auto` chose not to augment anywhere
        columns = [f"{name}, {counted(count)}" for name, count in seeds.items()]
        parts.append(f"### {stream}, batch {size}, source {augment}\n\n{filled(['method', *columns], body)}")
    return "\n".join([*parts, costs(found, methods)])


def costs(found: Mapping[str, Mapping[tuple[Setting, str], Line]], methods: Sequence[str]) -> str:
    """Return the table of microseconds per window: ordered streams, plain source."""
    sizes = sorted({setting[1] for lines in found.values() for setting, _ in lines})
    columns = [(name, size) for name in found for size in sizes]

    def cell(method: str, name: str, size: int) -> str:
        line = found[name].get((("ordered", size, PLAIN), method))
        return "" if line is None else f"{1000 * line.milliseconds:.0f}"

    body = [[method, *(cell(method, *column) for column in columns)] for method in methods]
    title = "### CPU microseconds per window, ordered streams, plain source\n\n"
    return title + filled(["method", *(f"{name}, batch {size}" for name, size in columns)], body)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="NAME=DIR", help="name of a column, and --out of an evaluation")
    parser.add_argument("--json", action="store_true", help="print lines as JSON")
    options = parser.parse_args(arguments)
    found: dict[str, Any] = {}
    for argument in options.folders:
        name, equals, folder = argument.partition("=")
        path = Path(folder) / "results.json"
        if not equals or not path.exists():
            parser.error(f"expected NAME=DIR with the --out of an acclimate evaluate, got {argument!r}")
        found[name] = read_lines(path)
    if options.json:
        print(json.dumps({name: [line.figures() for line in lines.values()] for name, lines in found.items()}))
    else:
        print(render(found))


if __name__ == "__main__":
    main()
