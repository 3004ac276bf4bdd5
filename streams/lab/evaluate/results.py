"""Make rows of finished tasks: each group's scores, paired with the source on the same windows.

A row's change is against the source of the same kind (plain or robust); its gain is against the plain source. Both are
paired window by window with that source at the same seed, stream, batch size and group, in the order of recording.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from adaptation.errors import ContractError
from adaptation.evaluation.harm import Change, paired_change
from adaptation.evaluation.scoring import collapsed
from registry.folder import replace_file
from streams.lab.evaluate.options import EvaluationOptions
from streams.lab.evaluate.task_runner import unpack_bits
from streams.lab.evaluate.tasks import GroupScores, Result, Task, read_finished
from streams.lab.study.choices import KeptChoice, KeptPolicy, read_choice, read_kept_policy, recipe_of
from streams.lab.study.code_state import (
    CHOICE_MAKERS,
    POLICY_MAKERS,
    SOURCE_MAKERS,
    code_digest,
)
from streams.lab.study.folder import FINISHED_FILE, read_binding
from streams.lab.study.prepare import SourceFacts, read_facts
from streams.lab.study.processes import FailedJob
from streams.lab.study.recipes import PLAIN
from streams.lab.study.taught import ALIGNMENTS, GENERATORS, AlignmentFacts, GeneratorFacts, Kind, TaughtFacts

__all__ = ["SOURCE", "Results", "Row", "collect_results", "write_json"]

SOURCE = "source"

_Facts = TypeVar("_Facts", bound=TaughtFacts)


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
            `adaptation.evaluation.harm`; harmed is None where it is undecided, or where that source is not finished.
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


@dataclass(frozen=True)
class Results:
    """The results of an evaluation.

    Attributes:
        rows: The rows of all finished tasks among those asked for.
        about: Data, selection, stride, severity, states of the code.
        sources: The facts of the source models.
        choice: The choice of ``auto``, if it was asked.
        policies: The settings of the policy, per seed and recipe.
        generators: The facts of each generator, per seed and recipe.
        alignments: The facts of each aligned encoder, per seed and recipe.
        outdated: Sources, choice, policies, generators and alignments that another state of the code made, in words.
        cannot: Methods that cannot adapt this network, and why.
        missing: The number of tasks that were asked for and are not finished.
        failed: The tasks that failed in this run, with their errors.
    """

    rows: tuple[Row, ...]
    about: Mapping[str, Any]
    sources: Sequence[SourceFacts]
    choice: KeptChoice | None
    policies: Sequence[KeptPolicy]
    generators: Sequence[GeneratorFacts]
    alignments: Sequence[AlignmentFacts]
    outdated: Sequence[str]
    cannot: Mapping[str, str]
    missing: int
    failed: Sequence[Mapping[str, Any]]


def collect_results(
    folder: Path,
    options: EvaluationOptions,
    tasks: Sequence[Task],
    groups: Sequence[str],
    failed: Sequence[FailedJob] = (),
) -> Results:
    """Read the folder; the tasks asked for count, whichever run finished them.

    Raises:
        ConfigError: The folder holds no evaluation.
        ContractError: Rows that are to be paired answered other windows or come from another model.
    """
    finished, _ = read_finished(folder / FINISHED_FILE)
    index = {(task, entry["group"]): entry for task, result in finished.items() for entry in result["groups"]}
    models = {task: result["model"] for task, result in finished.items() if result["groups"]}
    rows = []
    for augment in options.shown:
        recipe = recipe_of(folder, augment)
        for task in tasks:
            if task in finished and task.source == recipe:
                result = finished[task]
                rows += [_row(augment, task, result, entry, index, models) for entry in result["groups"]]
    used = sorted({(task.source, task.seed) for task in tasks}, key=lambda pair: (pair[1], pair[0]))
    sources = [facts for facts in read_facts(folder) if (facts.recipe, facts.seed) in used]
    choice = read_choice(folder) if "auto" in options.augment else None
    kept = [read_kept_policy(folder, recipe, seed) for recipe, seed in used]
    policies = [policy for policy in kept if policy is not None]
    generators, alignments = (_taught(kind, folder, options, used) for kind in (GENERATORS, ALIGNMENTS))
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
        sources=sources,
        choice=choice,
        policies=policies,
        generators=generators,
        alignments=alignments,
        outdated=[
            *_outdated(sources, choice, policies),
            *_outdated_taught(GENERATORS, generators),
            *_outdated_taught(ALIGNMENTS, alignments),
        ],
        cannot={task.method: finished[task]["cannot"] for task in tasks if "cannot" in finished.get(task, {})},
        missing=sum(task not in finished for task in tasks),
        failed=[{"task": asdict(item.job), **asdict(item.failure)} for item in failed],
    )


def write_json(path: Path, results: Results) -> None:
    """Write ``results.json``."""
    policies = [{"recipe": each.recipe, "seed": each.seed, **asdict(each.settings)} for each in results.policies]
    content = json.dumps({**asdict(results), "policies": policies}, allow_nan=False)
    # One row per line: readable with grep.
    replace_file(path, (content.replace('{"method"', '\n{"method"') + "\n").encode())


def _outdated(sources: Sequence[SourceFacts], choice: KeptChoice | None, policies: Sequence[KeptPolicy]) -> list[str]:
    """Name everything that is reused although the code that makes it has changed since."""
    source_code, choice_code, policy_code = map(code_digest, (SOURCE_MAKERS, CHOICE_MAKERS, POLICY_MAKERS))
    return [
        *(f"source {each.recipe}, seed {each.seed}" for each in sources if each.code != source_code),
        *(["choice of `auto`"] if choice is not None and choice.code != choice_code else []),
        *(f"policy for source {each.recipe}, seed {each.seed}" for each in policies if each.code != policy_code),
    ]


def _taught(
    kind: Kind[Any, _Facts, Any], folder: Path, options: EvaluationOptions, used: Sequence[tuple[str, int]]
) -> list[_Facts]:
    """Return the facts of everything of this kind that the methods asked for need."""
    needed = kind.needed(options.methods)
    return [facts for facts in kind.read_facts(folder) if facts.name in needed and (facts.recipe, facts.seed) in used]


def _outdated_taught(kind: Kind[Any, _Facts, Any], taught: Sequence[_Facts]) -> list[str]:
    current = code_digest(kind.makers)
    return [f"{facts.name} for source {facts.recipe}, seed {facts.seed}" for facts in taught if facts.code != current]


def _row(
    augment: str,
    task: Task,
    result: Result,
    entry: GroupScores,
    index: Mapping[tuple[Task, str], GroupScores],
    models: Mapping[Task, str],
) -> Row:
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


def _place(row: Row, options: EvaluationOptions) -> tuple[int, ...]:
    return (
        options.streams.index(row.stream),
        options.batch_sizes.index(row.batch_size),
        options.shown.index(row.augment),
        options.methods.index(row.method),
        row.seed,
    )  # groups keep the order of the data
