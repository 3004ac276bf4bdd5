"""``summary.md``: tables for people. Shares in percent, changes in percentage points."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from adaptation.evaluation.harm import share_interval
from streams.evaluate.results import SOURCE, Results, Row

__all__ = ["BRIEF", "HEAD", "Line", "cells", "render_summary", "summarise_lines"]

_GUIDE = """\
How to read the tables. A row is a method on a source model: `none` is the plain source, the others are robust ones.
**accuracy** is the mean over groups, then over seeds; **± seeds** the standard deviation of the seeds' means; **worst
group** the lowest accuracy of a group (mean over its seeds). **change** is against the source of the same kind on the
same windows; **gain** against the plain source. **harmed** is the share of (group, seed) pairs whose whole 95 %
block-bootstrap interval of the change lies below zero, in brackets Wilson's 95 % interval with groups as units,
because seeds repeat the same recordings. **collapsed** counts pairs that, late in the stream, answer one class more
than 95 % of the time where truth and source do not. **ms** is CPU time per window in the method; **state** what a
device keeps between batches.
"""

Rows = Sequence[Row]
_T = TypeVar("_T")
_K = TypeVar("_K")


class Line:
    """One method on one kind of source in one setting, over groups and seeds.

    Args:
        rows: Its rows, at least one.
        expected_pairs: Pairs of group and seed that the line has when it is finished.
    """

    def __init__(self, rows: Rows, expected_pairs: int) -> None:
        self.expected_pairs = expected_pairs
        self.rows = rows
        self.method, self.augment = rows[0].method, rows[0].augment
        self.stream, self.batch_size = rows[0].stream, rows[0].batch_size
        self.pairs = len(rows)
        by_seed = _grouped(rows, lambda row: row.seed)
        self.seeds = len(by_seed)
        means = [statistics.fmean(row.accuracy for row in part) for _, part in by_seed]
        self.accuracy = statistics.fmean(means)
        self.spread = statistics.stdev(means) if len(means) > 1 else None
        by_group = [(str(name), part) for name, part in _grouped(rows, lambda row: row.group)]
        self.groups = len(by_group)
        worst = min(by_group, key=lambda item: statistics.fmean(row.accuracy for row in item[1]))
        self.worst_group, self.worst_accuracy = worst[0], statistics.fmean(row.accuracy for row in worst[1])
        self.change = _mean(row.change for row in rows)
        self.gain = _mean(row.gain for row in rows)
        self.macro_f1 = statistics.fmean(row.macro_f1 for row in rows)
        self.nll = statistics.fmean(row.nll for row in rows)
        self.ece = statistics.fmean(row.ece for row in rows)
        self.harmed = _mean(None if row.harmed is None else float(row.harmed) for row in rows)
        self.gain_harmed = _mean(None if row.gain_harmed is None else float(row.gain_harmed) for row in rows)
        self.collapsed = sum(row.collapsed for row in rows)
        self.resets = sum(row.resets for row in rows)
        self.milliseconds = 1e3 * statistics.fmean(row.seconds_per_window for row in rows)
        self.state_bytes = max(row.state_bytes for row in rows)
        self.returned_accuracy = _mean(row.returned_accuracy for row in rows)
        self.returned_change = _mean(row.returned_change for row in rows)

    @property
    def harmed_interval(self) -> tuple[float, float] | None:
        """Wilson's interval of the harmed share, groups as units."""
        return None if self.harmed is None else share_interval(self.harmed, self.groups)

    def figures(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {name: value for name, value in vars(self).items() if name != "rows"} | {
            "harmed_interval": self.harmed_interval
        }


def summarise_lines(results: Results) -> list[Line]:
    """Return the lines of all tables, in the order of the rows."""
    pairs = results.about["pairs"]
    return [
        Line(part, pairs)
        for _, part in _grouped(results.rows, lambda row: (row.stream, row.batch_size, row.augment, row.method))
    ]


HEAD = (
    "source",
    "method",
    "accuracy",
    "± seeds",
    "worst group",
    "change",
    "gain",
    "harmed",
    "collapsed",
    "macro F1",
    "nll",
    "ece",
    "resets",
    "ms",
    "state",
)


BRIEF = ("source", "method", "accuracy", "worst group", "change", "gain", "harmed", "ms")  # fits a terminal


def cells(line: Line) -> list[str]:
    """Return the texts under `HEAD`."""
    return [
        line.augment,
        line.method + ("" if line.pairs >= line.expected_pairs else f" ({line.pairs} of {line.expected_pairs} pairs)"),
        _percent(line.accuracy),
        "" if line.spread is None else f"{100 * line.spread:.1f}",
        f"{_percent(line.worst_accuracy)} ({_plain(line.worst_group)})",
        _points(line.change),
        _points(line.gain),
        _harm(line),
        str(line.collapsed),
        _percent(line.macro_f1),
        f"{line.nll:.2f}",
        f"{line.ece:.2f}",
        str(line.resets),
        f"{line.milliseconds:.2f}",
        _size(line.state_bytes),
    ]


def render_summary(results: Results, command: str) -> str:
    """Return the page."""
    lines = summarise_lines(results)
    parts = [_head(results, command), _GUIDE]
    if lines:
        parts += [_overview(lines)]
        parts += [_setting(part) for _, part in _grouped(lines, lambda line: (line.stream, line.batch_size))]
        parts += [text for text in (_returned(lines), _corruptions(results.rows)) if text]
    return "\n".join(parts)


def _head(results: Results, command: str) -> str:
    about = results.about
    selected = about["selection"].items()
    text = [f"# Evaluation on {about['data']}\n", f"    {command}\n"]
    if about["stride"] > 1:
        text.append(f"**Quick look: only every {about['stride']}th window of each group (--stride). No result.**\n")
    if results.missing:
        text.append(f"**Unfinished: {results.missing} of the tasks asked for are missing.**\n")
    if results.failed:
        text.append(f"**{len(results.failed)} tasks failed; results.json has their errors.**\n")
    text += [f"`{method}` cannot adapt this network: {reason}.\n" for method, reason in results.cannot.items()]
    if len(about["code"]) > 1:
        text.append(
            f"Rows were made by {len(about['code'])} states of the code ({', '.join(about['code'])}); "
            "`--again METHODS` runs methods again.\n"
        )
    if about["severity"] is not None:
        text.append(f"Severity of all corrupted streams: {about['severity']:g}.\n")
    chosen = {name: "; ".join([value] if isinstance(value, str) else value) for name, value in selected if value}
    text.append(f"Selection: {', '.join(f'{name} {value}' for name, value in chosen.items()) or 'all'}.\n")
    if results.sources:
        text.append(
            _table(
                ["source model", "seed", "windows", "epochs", "last loss, nats"],
                [
                    [
                        str(facts["recipe"]),
                        str(facts["seed"]),
                        str(facts["windows"]),
                        str(facts["epochs"]),
                        f"{facts['loss']:.3f}",
                    ]
                    for facts in results.sources
                ],
            )
        )
    if (choice := results.choice) is not None:
        by = "leaving groups out" if choice["judged_by"] == "groups" else "simulated shifts of one group"
        weak = ", which is weak evidence" if choice["weak"] else ""
        text.append(f"`auto` chose {choice['recipe']}, judged by {by}{weak}.\n")
    for policy in results.policies:
        when = "through its gate" if policy["gated"] else "always"
        weak = " (weak evidence)" if policy["weak"] else ""
        rung = "the source only" if policy["rung"] == SOURCE else f"`{policy['rung']}` {when}"
        text.append(f"`policy` for source {policy['recipe']}, seed {policy['seed']}: {rung}{weak}.\n")
    return "\n".join(text)


def _overview(lines: Sequence[Line]) -> str:
    settings = [key for key, _ in _grouped(lines, lambda line: (line.stream, line.batch_size))]
    body = []
    for (augment, method), part in _grouped(lines, lambda line: (line.augment, line.method)):
        found = {(line.stream, line.batch_size): line for line in part}
        cells = [found.get(setting) for setting in settings]
        body.append([augment, method, *("" if line is None else _points(line.gain) for line in cells)])
    head = ["source", "method", *(f"{stream}, {size}" for stream, size in settings)]
    return "## Gain over the plain source, by stream and batch size\n\n" + _table(head, body)


def _setting(lines: Sequence[Line]) -> str:
    first = lines[0]
    body = [cells(line) for line in lines]
    seeds = max(line.seeds for line in lines)
    title = f"## {first.stream}, batch {first.batch_size} ({first.groups} groups, {seeds} seeds)\n\n"
    return title + _table(HEAD, body)


def _returned(lines: Sequence[Line]) -> str:
    body = [
        [
            line.augment,
            line.method,
            str(line.batch_size),
            _percent(line.returned_accuracy),
            _points(line.returned_change),
        ]
        for line in lines
        if line.returned_accuracy is not None
    ]
    if not body:
        return ""
    title = "## After the disturbance: the clean last third of `recurring`\n\n"
    return title + _table(["source", "method", "batch", "accuracy", "change"], body)


def _corruptions(rows: Rows) -> str:
    rows = [row for row in rows if row.corruption is not None]
    if not rows:
        return ""
    sources = {_place(row): row for row in rows if row.method == SOURCE}
    body = []
    for corruption, mine in sorted(_grouped(rows, lambda row: row.corruption or "")):
        for (batch_size, augment, method), part in _grouped(
            mine, lambda row: (row.batch_size, row.augment, row.method)
        ):
            pairs = len({(row.group, row.seed) for row in part})
            cells = [_at_level(part, sources, level) for level in range(6)]
            body.append([corruption, str(batch_size), augment, method, str(pairs), *cells])
    head = ["corruption", "batch", "source", "method", "pairs", "clean", *(f"{level}" for level in range(1, 6))]
    title = (
        "## By corruption and severity\n\nOver the windows of all corrupted streams. Rows of `source`: accuracy; other "
        "rows: change against that source on the same windows. **pairs** of group and seed drew the corruption. The "
        "columns differ in their windows and classes as well: compare within a column.\n\n"
    )
    return title + _table(head, body)


def _at_level(rows: Rows, sources: Mapping[tuple[object, ...], Row], level: int) -> str:
    windows = right = source_right = 0
    for row in rows:
        source = sources.get(_place(row))
        if source is not None:
            for (at, n, mine), (_, _, theirs) in zip(row.by_severity, source.by_severity, strict=True):
                if at == level:
                    windows, right, source_right = windows + n, right + mine, source_right + theirs
    if not windows:
        return ""
    return _percent(right / windows) if rows[0].method == SOURCE else _points((right - source_right) / windows)


def _place(row: Row) -> tuple[object, ...]:
    return row.stream, row.batch_size, row.augment, row.seed, row.group


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cells) + " |" for cells in body]
    return "\n".join(lines) + "\n"


def _grouped(items: Iterable[_T], key: Callable[[_T], _K]) -> list[tuple[_K, list[_T]]]:
    """Group by key, wherever the items stand; keys in the order of their first item."""
    found: dict[_K, list[_T]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return list(found.items())


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _points(change: float | None) -> str:
    if change is None:
        return ""
    rounded = round(100 * change, 1)
    return "0.0" if rounded == 0 else f"{rounded:+.1f}"


def _harm(line: Line) -> str:
    interval = line.harmed_interval
    if line.harmed is None or interval is None:
        return ""
    return f"{100 * line.harmed:.0f} % ({100 * interval[0]:.0f} to {100 * interval[1]:.0f})"


def _size(size_bytes: int) -> str:
    return f"{size_bytes} B" if size_bytes < 1024 else f"{size_bytes / 1024:.1f} KiB"


def _plain(name: str) -> str:
    return name.replace("|", "\\|")
