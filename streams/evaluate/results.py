"""From finished tasks to rows: each group's scores, paired with the source on the same windows.

A row's change is against the source of the same kind (plain or robust); its gain is against the plain source. Both are
paired window by window with that source at the same seed, stream, batch size and group.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from adaptation.evaluation.harm import Change, paired_change
from adaptation.evaluation.scoring import collapsed
from streams.evaluate.evaluation import FailedTask, recipe_of
from streams.evaluate.folder import read_binding
from streams.evaluate.options import PLAIN, EvaluationOptions
from streams.evaluate.prepare import read_choice, read_facts, read_policy
from streams.evaluate.task_runner import unpack_bits
from streams.evaluate.tasks import FINISHED_FILE, Task, read_finished

__all__ = ["SOURCE", "Results", "Row", "collect_results", "write_json"]

SOURCE = "source"


@dataclass(frozen=True)
class Row:
    """One group under one method.

    Attributes:
        augment: Kind of source that was asked for; ``recipe`` is what it came to on this seed.
        source_kind: ``plain`` or ``robust``; a robust source whose choice was no augmentation equals the plain one.
        state_policy: ``none`` (stateless), ``per group``, or ``shared by all groups``.
        corruption, severity: Of the stream; None where it has none. The highest severity that occurs.
        seconds_per_window: CPU time in the method.
        peak_memory_bytes: Of the whole process; ``working_memory_bytes`` is its rise above the level before the run.
        change, change_low, change_high, harmed: Against the source of the same kind, see `adaptation.evaluation.harm`.
        gain, gain_low, gain_high, gain_harmed: The same against the plain source.
        returned_accuracy, returned_change: On the clean last third of ``recurring``.
        by_severity: Severity level (0 is clean), windows, and how many of them were answered right.
    """

    method: str
    stream: str
    batch_size: int
    seed: int
    group: str
    augment: str
    recipe: str
    source_kind: str
    n: int
    accuracy: float
    macro_f1: float
    worst_class_recall: float
    nll: float
    ece: float
    change: float | None
    change_low: float | None
    change_high: float | None
    harmed: bool | None
    gain: float | None
    gain_low: float | None
    gain_high: float | None
    gain_harmed: bool | None
    block: int
    corruption: str | None
    severity: float | None
    by_severity: tuple[tuple[int, int, int], ...]
    returned_accuracy: float | None
    returned_change: float | None
    collapsed: bool
    resets: int
    updates: int
    selected: int
    state_policy: str
    state_bytes: int
    seconds_per_window: float
    peak_memory_bytes: int | None
    working_memory_bytes: int | None


@dataclass(frozen=True)
class Results:
    """All that is known.

    Attributes:
        rows: Of all finished tasks among those asked for.
        about: Data, selection, stride, severity, states of the code.
        sources: Facts of the source models.
        choice: What ``auto`` chose, if it was asked.
        policies: What the policy may do, per seed and recipe.
        cannot: Methods that cannot adapt this network, and why.
        missing: Tasks of the options that are not finished.
        failed: What failed in this run.
    """

    rows: tuple[Row, ...]
    about: Mapping[str, Any]
    sources: Sequence[Mapping[str, Any]]
    choice: Mapping[str, Any] | None
    policies: Sequence[Mapping[str, Any]]
    cannot: Mapping[str, str]
    missing: int
    failed: Sequence[Mapping[str, Any]]


def collect_results(
    folder: Path,
    options: EvaluationOptions,
    tasks: Sequence[Task],
    groups: Sequence[str],
    failed: Sequence[FailedTask] = (),
) -> Results:
    """Read the folder; of what it holds, the tasks asked for count, whichever run finished them."""
    finished, _ = read_finished(folder / FINISHED_FILE)
    index = {(task, entry["group"]): entry for task, result in finished.items() for entry in result["groups"]}
    rows = []
    for augment in options.shown:
        for task in tasks:
            if task in finished and task.source == recipe_of(folder, augment):
                result = finished[task]
                rows += [_row(augment, task, result, entry, index) for entry in result["groups"]]
    used = {(task.source, task.seed) for task in tasks}
    rows.sort(key=lambda row: _place(row, options))
    about = {
        **read_binding(folder),
        "seeds": options.seeds,
        "groups": len(groups),
        "pairs": len(groups) * options.seeds,
        "code": sorted({finished[task]["code"] for task in tasks if task in finished}),
    }
    return Results(
        rows=tuple(rows),
        about=about,
        sources=[facts for facts in read_facts(folder) if (facts["recipe"], facts["seed"]) in used],
        choice=read_choice(folder),
        policies=[
            {"recipe": recipe, "seed": seed, **asdict(policy)}
            for recipe, seed in sorted(used, key=lambda pair: (pair[1], pair[0]))
            if (policy := read_policy(folder, recipe, seed)) is not None
        ],
        cannot={task.method: finished[task]["cannot"] for task in tasks if "cannot" in finished.get(task, {})},
        missing=sum(task not in finished for task in tasks),
        failed=[{"task": asdict(item.task), **asdict(item.failure)} for item in failed],
    )


def write_json(path: Path, results: Results) -> None:
    """Write ``results.json``."""
    content = json.dumps(asdict(results), allow_nan=False)
    scratch = path.with_suffix(".new")
    scratch.write_text(content.replace('{"method"', '\n{"method"') + "\n")  # one row per line: readable with grep
    scratch.replace(path)


def _row(
    augment: str,
    task: Task,
    result: Mapping[str, Any],
    entry: Mapping[str, Any],
    index: Mapping[tuple[Task, str], Mapping[str, Any]],
) -> Row:
    run = result["run"]
    own = index.get((_of_source(task, task.source), entry["group"]))
    plain = index.get((_of_source(task, PLAIN), entry["group"]))
    change, gain = _change(entry, own), _change(entry, plain)
    against: dict[str, Any] = {
        "change": change.mean if change else None,
        "change_low": change.low if change else None,
        "change_high": change.high if change else None,
        "harmed": change.harmed if change else None,
        "gain": gain.mean if gain else None,
        "gain_low": gain.low if gain else None,
        "gain_high": gain.high if gain else None,
        "gain_harmed": gain.harmed if gain else None,
    }
    shared = "shared by all groups" if task.group == "" else "per group"
    returned = _share(entry["returned"])
    own_returned = None if own is None else _share(own["returned"])
    return Row(
        method=task.method,
        stream=task.stream,
        batch_size=task.batch_size,
        seed=task.seed,
        group=entry["group"],
        augment=augment,
        recipe=task.source,
        source_kind="plain" if augment == PLAIN else "robust",
        **{name: entry[name] for name in ("n", "accuracy", "macro_f1", "worst_class_recall", "nll", "ece", "block")},
        **against,
        corruption=entry["corruption"],
        severity=entry["severity"],
        by_severity=tuple((level, count, right) for level, count, right in entry["by_severity"]),
        returned_accuracy=returned,
        returned_change=None if returned is None or own_returned is None else returned - own_returned,
        collapsed=collapsed(entry["tail_share"], None if own is None else own["tail_share"]),
        state_policy="none" if run["stateless"] else shared,
        **{name: run[name] for name in ("resets", "updates", "selected", "state_bytes", "seconds_per_window")},
        peak_memory_bytes=run["peak_memory_bytes"],
        working_memory_bytes=run["working_memory_bytes"],
    )


def _of_source(task: Task, recipe: str) -> Task:
    return Task(recipe, task.seed, task.stream, task.batch_size, SOURCE, task.group)


def _change(entry: Mapping[str, Any], source: Mapping[str, Any] | None) -> Change | None:
    if source is None:
        return None
    return paired_change(unpack_bits(entry), unpack_bits(source), entry["block"])


def _share(counted: Sequence[int]) -> float | None:
    return counted[1] / counted[0] if counted[0] else None


def _place(row: Row, options: EvaluationOptions) -> tuple[int, ...]:
    return (
        options.streams.index(row.stream),
        options.batch_sizes.index(row.batch_size),
        options.shown.index(row.augment),
        options.methods.index(row.method),
        row.seed,
    )  # groups keep the order of the data
