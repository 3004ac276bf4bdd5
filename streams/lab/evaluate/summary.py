"""Write ``summary.md``: tables for people, with shares in percent and changes in percentage points."""

import statistics
from collections.abc import Mapping, Sequence

from acclimate.adaptation.methods.policy_settings import PolicySettings
from acclimate.streams.lab.evaluate.lines import Line, summarise_lines
from acclimate.streams.lab.evaluate.reading_guide import reading_guide
from acclimate.streams.lab.evaluate.results import Results
from acclimate.streams.lab.evaluate.rows import SOURCE, Row
from acclimate.streams.lab.study.tables import grouped, points, table
from acclimate.streams.lab.study.taught import AlignmentFacts, GeneratorFacts

__all__ = ["BRIEF", "HEAD", "cells", "render_summary"]

HEAD = (
    "source",
    "method",
    "accuracy",
    "± seeds",
    "worst group",
    "change",
    "gain",
    "harmed",
    "adapted",
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
        points(line.change),
        points(line.gain),
        _harm(line),
        _percent(line.adapted_share),
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
    parts = [_head(results, command), reading_guide(line.method for line in lines)]
    if lines:
        parts += [_overview(lines)]
        parts += [_setting(part) for _, part in grouped(lines, lambda line: (line.stream, line.batch_size))]
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
    if results.outdated:
        text.append(
            f"Made by an earlier state of the code and reused as they are: {'; '.join(results.outdated)}. "
            "`--again NAME` makes a policy or a generator anew; another --out makes everything anew.\n"
        )
    if about["severity"] is not None:
        text.append(f"Severity of all corrupted streams: {about['severity']:g}.\n")
    chosen = {name: "; ".join([value] if isinstance(value, str) else value) for name, value in selected if value}
    text.append(f"Selection: {', '.join(f'{name} {value}' for name, value in chosen.items()) or 'all'}.\n")
    if results.sources:
        text.append(
            table(
                ["source model", "seed", "windows", "epochs", "last loss, nats"],
                [
                    [facts.recipe, str(facts.seed), str(facts.windows), str(facts.epochs), f"{facts.loss:.3f}"]
                    for facts in results.sources
                ],
            )
        )
    if (choice := results.choice) is not None:
        by = "leaving groups out" if choice.judged_by == "groups" else "simulated shifts of one group"
        weak = ", which is weak evidence" if choice.weak else ""
        text.append(f"`auto` chose {choice.recipe}, judged by {by}{weak}.\n")
    for kept in results.policies:
        policy = kept.settings
        when = "through its gate" if policy.gated else "always"
        weak = " (weak evidence)" if policy.weak else ""
        rung = "the source only" if policy.rung == SOURCE else f"`{policy.rung}` {when}"
        text.append(f"`policy` for source {kept.recipe}, seed {kept.seed}: {rung}{weak}{_proof(policy)}.\n")
    if results.generators:
        text.append(_generators(results.generators))
    if results.alignments:
        text.append(_alignments(results.alignments))
    return "\n".join(text)


def _generators(facts: Sequence[GeneratorFacts]) -> str:
    """Show how well generators did on held-out groups of the source, under simulated shifts."""
    head = ["generator", "source model", "seed", "loss without", "with", "accuracy without", "with", "updates"]
    head += ["share of steps at test", "CPU s"]
    rows = [
        [
            f"{each.name}{'' if each.helps else ' (no help)'}",
            each.recipe,
            str(each.seed),
            f"{each.best['source_loss']:.3f}",
            f"{each.best['loss']:.3f}",
            f"{100 * each.best['source_accuracy']:.1f}",
            f"{100 * each.best['accuracy']:.1f}",
            f"{each.best['update']} of {each.updates}",
            f"{each.step_share:g}",
            f"{each.seconds:.0f}",
        ]
        for each in facts
    ]
    return "Generators on shifted windows of source groups that they were not taught with:\n\n" + table(head, rows)


def _alignments(facts: Sequence[AlignmentFacts]) -> str:
    """Show how well encoders are aligned on all windows of the source."""
    head = ["aligned encoder", "source model", "seed", "cosine, one window", "two windows", "loss of its task", "CPU s"]
    rows = [
        [
            each.name,
            each.recipe,
            str(each.seed),
            f"{each.matched:.2f}",
            f"{each.mismatched:.2f}",
            f"{each.ssl_mean:.2f} ± {each.ssl_std:.2f}",
            f"{each.seconds:.0f}",
        ]
        for each in facts
    ]
    return "Aligned encoders on windows of the source; cosines are with the classifier's encoder:\n\n" + table(
        head, rows
    )


def _proof(policy: PolicySettings) -> str:
    """Say how the chosen rung did on the devices left out, where it always answered."""
    tried = [score for score in policy.table if score.rung == policy.rung]
    if not tried:
        return ""
    gain = statistics.fmean(score.accuracy - score.source_accuracy for score in tried)
    loss = ", **a loss: only the gate holds it back**" if gain < 0 and policy.gated else ""
    devices = f"{len(tried)} source devices left out of training"
    return f"; without a gate it gained {points(gain)} points in the mean on {devices}{loss}"


def _overview(lines: Sequence[Line]) -> str:
    settings = [key for key, _ in grouped(lines, lambda line: (line.stream, line.batch_size))]
    body = []
    for (augment, method), part in grouped(lines, lambda line: (line.augment, line.method)):
        found = {(line.stream, line.batch_size): line for line in part}
        cells = [found.get(setting) for setting in settings]
        body.append([augment, method, *("" if line is None else points(line.gain) for line in cells)])
    head = ["source", "method", *(f"{stream}, {size}" for stream, size in settings)]
    return "## Gain over the plain source, by stream and batch size\n\n" + table(head, body)


def _setting(lines: Sequence[Line]) -> str:
    first = lines[0]
    body = [cells(line) for line in lines]
    seeds = max(line.seeds for line in lines)
    title = f"## {first.stream}, batch {first.batch_size} ({first.groups} groups, {seeds} seeds)\n\n"
    return title + _narrow(lines) + table(HEAD, body)


def _narrow(lines: Sequence[Line]) -> str:
    """Say where blocks are shorter than the runs of one class that they should hold together."""
    rows = {(row.group, row.seed): row for line in lines for row in line.rows}
    narrow = sum(row.label_run > row.block for row in rows.values())
    if not narrow:
        return ""
    return (
        f"In {narrow} of {len(rows)} pairs of group and seed one class runs on for longer than a block, an eighth of "
        "the group: their intervals are too narrow and call harm too often.\n\n"
    )


def _returned(lines: Sequence[Line]) -> str:
    body = [
        [
            line.augment,
            line.method,
            str(line.batch_size),
            _percent(line.returned_accuracy),
            points(line.returned_change),
        ]
        for line in lines
        if line.returned_accuracy is not None
    ]
    if not body:
        return ""
    title = "## After the disturbance: the clean last third of `recurring`\n\n"
    return title + table(["source", "method", "batch", "accuracy", "change"], body)


def _corruptions(rows: Sequence[Row]) -> str:
    rows = [row for row in rows if row.corruption is not None]
    if not rows:
        return ""
    sources = {_place(row): row for row in rows if row.method == SOURCE}
    body = []
    for corruption, mine in sorted(grouped(rows, lambda row: row.corruption or "")):
        for (batch_size, augment, method), part in grouped(mine, lambda row: (row.batch_size, row.augment, row.method)):
            pairs = len({(row.group, row.seed) for row in part})
            cells = [_at_level(part, sources, level) for level in range(6)]
            body.append([corruption, str(batch_size), augment, method, str(pairs), *cells])
    head = ["corruption", "batch", "source", "method", "pairs", "clean", *(f"{level}" for level in range(1, 6))]
    title = (
        "## By corruption and severity\n\nOver the windows of all corrupted streams. Rows of `source`: accuracy; other "
        "rows: change against that source on the same windows. **pairs** of group and seed drew the corruption. The "
        "columns differ in their windows and classes as well: compare within a column.\n\n"
    )
    return title + table(head, body)


def _at_level(rows: Sequence[Row], sources: Mapping[tuple[object, ...], Row], level: int) -> str:
    windows = right = source_right = 0
    for row in rows:
        source = sources.get(_place(row))
        mine, theirs = _counted(row, level), _counted(source, level)
        if mine is not None and theirs is not None and mine[0] == theirs[0]:  # else they are not the same windows
            windows, right, source_right = windows + mine[0], right + mine[1], source_right + theirs[1]
    if not windows:
        return ""
    return _percent(right / windows) if rows[0].method == SOURCE else points((right - source_right) / windows)


def _counted(row: Row | None, level: int) -> tuple[int, int] | None:
    """Return how many windows a row has at this level of severity, and how many of them are right."""
    found = [] if row is None else [(n, right) for at, n, right in row.by_severity if at == level]
    return found[0] if found else None


def _place(row: Row) -> tuple[object, ...]:
    return row.stream, row.batch_size, row.augment, row.seed, row.group


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _harm(line: Line) -> str:
    interval = line.harmed_interval
    undecided = f"{line.undecided} undecided" if line.undecided else ""
    if line.harmed is None or interval is None:
        return undecided
    text = f"{100 * line.harmed:.0f} % ({100 * interval[0]:.0f} to {100 * interval[1]:.0f})"
    return f"{text}, {undecided}" if undecided else text


def _size(size_bytes: int) -> str:
    return f"{size_bytes} B" if size_bytes < 1024 else f"{size_bytes / 1024:.1f} KiB"


def _plain(name: str) -> str:
    return name.replace("|", "\\|")
