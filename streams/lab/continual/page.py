"""Write ``results.json`` for programs and ``summary.md`` for people.

Shares are in percent, changes in percentage points.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acclimate.registry.folder import replace_file
from acclimate.streams.lab.continual.options import ContinualOptions, binding
from acclimate.streams.lab.continual.results import Line, Results, figures
from acclimate.streams.lab.study.tables import grouped, points, table

__all__ = ["HEAD", "cells", "write_page", "write_results"]

HEAD = (
    "source",
    "method",
    "rate",
    "accuracy",
    "closed",
    "own turn",
    "last group",
    "BWT",
    "forgetting",
    "FWT",
    "source's own",
    "while learning",
    "worst group",
    "harmed",
    "ms a step",
    "moved",
    "Lipschitz",
)

_GUIDE = """\
How to read the tables. A row learns the groups one after the other from delayed labels; means over seeds. **accuracy**:
of the last model on stretches of all groups that nothing learned from. **closed**: share of the distance between the
source and a model fine-tuned on all labels of each group alone that this closes. **own turn**: accuracy on each group
at the end of its own training, as of devices that keep the model they have then, and the share of the distance that it
closes. **last group**: accuracy on it. **BWT**: mean change on a group between the end of its own training and the end
of all; **forgetting** the same from its best time, as a loss; **FWT** what a group gained before its own turn.
**source's own**: change on the source's stretches. **while learning**: change against the source on the windows as they
came, answered before their labels; **worst group** the lowest of these, **harmed** the share of pairs of group and seed
whose whole 95 % interval lies below zero. **ms a step**: CPU time of the update, all its work. **moved**: largest
distance of a tensor from the source, relative to its length. **Lipschitz**: bound of the last model over the source's.
"""


def cells(line: Line) -> list[str]:
    """Return the texts under `HEAD`."""
    return [
        line.recipe,
        line.method,
        f"{line.learning_rate:g}",
        f"{100 * line.accuracy:.1f}",
        _share(line.closed),
        f"{100 * line.learning_accuracy:.1f}{_share(line.closed_at_once, ' ({})')}",
        f"{100 * line.last_accuracy:.1f}",
        points(line.bwt),
        f"{100 * line.forgetting:.1f}",
        points(line.fwt),
        points(line.source_accuracy - line.source_start),
        points(line.change),
        f"{points(line.worst_change)} ({line.worst_group})",
        "undecided" if line.harmed is None else f"{100 * line.harmed:.0f} %",
        f"{1e3 * line.seconds_per_step:.1f}",
        f"{line.largest_distance:.2f}",
        f"{line.lipschitz_ratio:.2f}",
    ]


def _share(value: float | None, form: str = "{}") -> str:
    return "" if value is None else form.format(f"{100 * value:.0f} %")


def write_results(path: Path, options: ContinualOptions, results: Results) -> None:
    """Write ``results.json``."""
    content: Mapping[str, Any] = {
        "about": binding(options),
        "groups": results.groups,
        "summary": [figures(line) for line in results.lines],
        "runs": results.runs,
        "missing": results.missing,
        "failed": results.failed,
    }
    replace_file(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def write_page(path: Path, options: ContinualOptions, results: Results, command: str) -> None:
    """Write ``summary.md``."""
    about = binding(options)
    parts = [f"# Continual learning on {about['data']}\n", f"    {command}\n"]
    if results.missing:
        parts.append(f"**Unfinished: {results.missing} of the runs asked for are missing.**\n")
    if results.failed:
        parts.append(f"**{len(results.failed)} runs failed; results.json has their errors.**\n")
    parts += [
        f"Labels come {options.delay} windows of the group late, the rest at its end. Up to {options.memory} windows "
        f"of groups are remembered, beside the source's; an update is {options.steps} steps.\n",
        _GUIDE,
    ]
    for (fraction, wrong), lines in grouped(results.lines, lambda line: (line.label_fraction, line.wrong)):
        told = f", {100 * wrong:g} % of them wrong" if wrong else ""
        parts.append(
            f"## {100 * fraction:g} % of the labels{told}\n\n{_sources(lines)}{table(HEAD, map(cells, lines))}"
        )
    replace_file(path, "\n".join(parts).encode())


def _sources(lines: list[Line]) -> str:
    texts = [
        f"Source {recipe}: {100 * mine[0].start:.1f} on the groups, {100 * mine[0].source_start:.1f} on its own"
        + (
            ""
            if mine[0].fine_tuned is None
            else f"; fine-tuned on all labels of each group {100 * mine[0].fine_tuned:.1f}"
        )
        + f"; {mine[0].seeds} seeds, {mine[0].labels:.0f} labels.\n"
        for recipe, mine in grouped(lines, lambda line: line.recipe)
    ]
    return "\n".join(texts) + "\n"
