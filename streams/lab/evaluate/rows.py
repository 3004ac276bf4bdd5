"""Make a row of a finished task: a group's scores, paired with the source on the same windows.

A row's change is against the source of the same kind (plain or robust); its gain is against the plain source. Both are
paired window by window with that source at the same seed, stream, batch size and group, in the order of recording.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from acclimate.adaptation.errors import ContractError
from acclimate.adaptation.evaluation.harm import Change, paired_change
from acclimate.adaptation.evaluation.scoring import collapsed
from acclimate.streams.lab.evaluate.task_runner import unpack_bits
from acclimate.streams.lab.evaluate.tasks import GroupScores, Result, Task
from acclimate.streams.lab.study.recipes import PLAIN

__all__ = ["SOURCE", "Row", "make_row"]

SOURCE = "source"


@dataclass(frozen=True)
class Row:
    """One group under one method.

    Attributes:
        augment: The kind of source that was asked for; ``recipe`` is the recipe that it came to.
        source_kind: ``plain`` or ``robust``; a robust source whose choice was no augmentation equals the plain one.
        state_policy: ``none`` (stateless), ``per group``, or ``shared by all groups``.
        corruption, severity: The stream's corruption and its highest severity; None where it has none.
        seconds_per_window: The CPU time in the method.
        peak_memory_bytes: The peak of the whole process; ``working_memory_bytes`` is its rise above the level before
            the run.
        change, change_low, change_high, harmed: The change against the source of the same kind, see
            `acclimate.adaptation.evaluation.harm`; harmed is None where it is undecided, or where that source is not
            finished.
        block, blocks, label_run: The windows per block, blocks per replicate, and the run of one class in which the
            median window lies; a run longer than a block makes the interval too narrow.
        adapted_share: The share of the stream's windows that another rung than the source answered; None for methods
            that keep no receipts.
        gain, gain_low, gain_high, gain_harmed: The same against the plain source.
        returned_accuracy, returned_change: Accuracy and change on the clean last third of ``recurring``.
        by_severity: Severity level (0 is clean), number of windows, and number of right answers.
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
    blocks: int
    label_run: int
    corruption: str | None
    severity: float | None
    by_severity: tuple[tuple[int, int, int], ...]
    returned_accuracy: float | None
    returned_change: float | None
    collapsed: bool
    resets: int
    updates: int
    selected: int
    adapted_share: float | None
    state_policy: str
    state_bytes: int
    seconds_per_window: float
    peak_memory_bytes: int | None
    working_memory_bytes: int | None


def make_row(
    augment: str,
    task: Task,
    result: Result,
    entry: GroupScores,
    index: Mapping[tuple[Task, str], GroupScores],
    models: Mapping[Task, str],
) -> Row:
    """Make the row of one group.

    Args:
        augment: The kind of source that was asked for.
        task, result, entry: The task, its result, and the group's part of it.
        index: The parts of all results, by task and group, to find the sources' own.
        models: The digest of the source model of each task.

    Raises:
        ContractError: The source's own result answered other windows or comes from another model.
    """
    run = result["run"]
    own_task = _of_source(task, task.source)
    if models.get(own_task, result["model"]) != result["model"]:
        raise ContractError(
            f"{task}: the source's own results came from another model of this recipe and seed; run both again: "
            f"--again {SOURCE},{task.method}"
        )
    own = index.get((own_task, entry["group"]))
    plain = index.get((_of_source(task, PLAIN), entry["group"]))
    change, gain = _change(task, entry, own), _change(task, entry, plain)
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
        n=entry["n"],
        accuracy=entry["accuracy"],
        macro_f1=entry["macro_f1"],
        worst_class_recall=entry["worst_class_recall"],
        nll=entry["nll"],
        ece=entry["ece"],
        block=entry["block"],
        label_run=entry["label_run"],
        blocks=-(-entry["n"] // entry["block"]),
        **against,
        corruption=entry["corruption"],
        severity=entry["severity"],
        by_severity=tuple((level, count, right) for level, count, right in entry["by_severity"]),
        returned_accuracy=returned,
        returned_change=None if returned is None or own_returned is None else returned - own_returned,
        collapsed=collapsed(entry["tail_share"], None if own is None else own["tail_share"]),
        adapted_share=run["adapted_share"],
        state_policy="none" if run["stateless"] else shared,
        resets=run["resets"],
        updates=run["updates"],
        selected=run["selected"],
        state_bytes=run["state_bytes"],
        seconds_per_window=run["seconds_per_window"],
        peak_memory_bytes=run["peak_memory_bytes"],
        working_memory_bytes=run["working_memory_bytes"],
    )


def _of_source(task: Task, recipe: str) -> Task:
    return Task(recipe, task.seed, task.stream, task.batch_size, SOURCE, task.group)


def _change(task: Task, entry: GroupScores, source: GroupScores | None) -> Change | None:
    if source is None:
        return None
    if entry["data"] != source["data"]:
        raise ContractError(
            f"{task}: group {entry['group']} was streamed other windows than the source (digests {entry['data']} and "
            f"{source['data']}): the code that makes streams has changed in between. Run both again: "
            f"--again {SOURCE},{task.method}"
        )
    return paired_change(unpack_bits(entry, "recorded"), unpack_bits(source, "recorded"), entry["block"])


def _share(counted: Sequence[int]) -> float | None:
    return counted[1] / counted[0] if counted[0] else None
