"""Collect the results of an evaluation from its folder: rows of finished tasks, and the facts of its sources."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from acclimate.registry.folder import replace_file
from acclimate.streams.lab.evaluate.options import EvaluationOptions
from acclimate.streams.lab.evaluate.rows import Row, make_row
from acclimate.streams.lab.evaluate.tasks import Task, read_finished
from acclimate.streams.lab.study.choices import KeptChoice, KeptPolicy, read_choice, read_kept_policy, recipe_of
from acclimate.streams.lab.study.code_state import CHOICE_MAKERS, POLICY_MAKERS, SOURCE_MAKERS, code_digest
from acclimate.streams.lab.study.folder import FINISHED_FILE, read_binding
from acclimate.streams.lab.study.prepare import SourceFacts, read_facts
from acclimate.streams.lab.study.processes import FailedJob
from acclimate.streams.lab.study.taught import ALIGNMENTS, GENERATORS, AlignmentFacts, GeneratorFacts, Kind, TaughtFacts

__all__ = ["Results", "collect_results", "write_json"]

_Facts = TypeVar("_Facts", bound=TaughtFacts)


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
                rows += [make_row(augment, task, result, entry, index, models) for entry in result["groups"]]
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


def _place(row: Row, options: EvaluationOptions) -> tuple[int, ...]:
    return (
        options.streams.index(row.stream),
        options.batch_sizes.index(row.batch_size),
        options.shown.index(row.augment),
        options.methods.index(row.method),
        row.seed,
    )  # groups keep the order of the data
