"""Run one evaluation: sources first, then every task that is not finished yet."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from acclimate.adaptation.data.dataset import Split
from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.evaluation.streams import stream_members
from acclimate.streams.lab.evaluate.options import EvaluationOptions, binding
from acclimate.streams.lab.evaluate.recordings import load_data
from acclimate.streams.lab.evaluate.task_runner import start_worker
from acclimate.streams.lab.evaluate.tasks import (
    Result,
    Task,
    append_finished,
    forget_tasks,
    open_finished,
    read_finished,
)
from acclimate.streams.lab.study.choices import policy_path, read_policy, recipes_of
from acclimate.streams.lab.study.folder import FINISHED_FILE, open_folder
from acclimate.streams.lab.study.jobs import CalibratePolicy, Teach, make_sources
from acclimate.streams.lab.study.processes import FailedJob, StageProgress, Workers
from acclimate.streams.lab.study.recipes import PLAIN
from acclimate.streams.lab.study.taught import KINDS, Kind

__all__ = ["list_tasks", "run_evaluation"]

POLICY = "policy"
_PREPARING = "preparing sources"


def run_evaluation(
    options: EvaluationOptions, folder: Path, *, force: bool = False, again: Sequence[str] = (), progress: StageProgress
) -> list[FailedJob]:
    """Run all tasks that are not finished yet; return those that failed.

    Args:
        options: The options of the evaluation.
        folder: The folder that keeps the results; an interrupted run goes on from there.
        force: Delete results of another configuration.
        again: Methods whose finished tasks, of those asked for, are forgotten first: their code has changed.
        progress: A function that is called after each job.

    Raises:
        ConfigError: The folder is in use or bound to another configuration, options do not fit the data, or a method is
            to run again that is not among those asked for.
        DataError: The source makes no model.
        ContractError: The folder's files are damaged.
        WorkerDied: A worker process did.
    """
    stray = [name for name in again if name not in options.methods]
    if stray:
        raise ConfigError(f"--again: {stray[0]} is not among --methods ({', '.join(options.methods)}); add it there")
    target = load_data(options).target
    with open_folder(folder, binding(options), force):
        workers = Workers(start_worker, (options, folder), options.jobs, progress)
        make_sources(folder, options.shown, options.seeds, partial(workers.finish, _PREPARING))
        _forget(list_tasks(options, folder, target), folder, again)
        workers.finish(_PREPARING, _policies(options, folder))
        for kind in KINDS.values():
            workers.finish(_PREPARING, _teachings(kind, options, folder))
        tasks = list_tasks(options, folder, target)
        finished, _ = read_finished(folder / FINISHED_FILE)
        # Whether a method can adapt a network is asked again each time: that is cheap, and code changes.
        missing = [task for task in tasks if "cannot" in finished.get(task, {"cannot": ""})]
        with open_finished(folder / FINISHED_FILE) as file:

            def keep(task: Task, result: Result) -> None:
                before = finished.get(task)
                if before is None or "cannot" not in result or before.get("cannot") != result["cannot"]:
                    append_finished(file, task, result)

            return workers.attempt("running methods", missing, len(tasks), keep)


def list_tasks(options: EvaluationOptions, folder: Path, target: Split) -> list[Task]:
    """Return all tasks: seed by seed, the source first, large batches before small ones because they are quick.

    Raises:
        ConfigError: A stream is unknown.
        ContractError: ``auto`` has not chosen yet.
    """
    tasks = []
    for seed in range(options.seeds):
        recipes = recipes_of(folder, options.augment)
        for stream in options.streams:
            members = stream_members(target, stream)
            for batch_size in sorted(options.batch_sizes, reverse=True):
                for method in options.methods:
                    # The plain source is shown even where only robust sources were asked for.
                    shown = [PLAIN, *recipes] if method == options.methods[0] else recipes
                    tasks += [
                        Task(recipe, seed, stream, batch_size, method, groups[0] if stream != "mixed" else "")
                        for recipe in dict.fromkeys(shown)
                        for groups in members
                    ]
    return tasks


def _forget(tasks: Sequence[Task], folder: Path, methods: Sequence[str]) -> None:
    chosen = [task for task in tasks if task.method in methods]
    forget_tasks(folder / FINISHED_FILE, chosen)
    for recipe, seed in {(task.source, task.seed) for task in chosen if task.method == POLICY}:
        policy_path(folder, recipe, seed).unlink(missing_ok=True)
    for task in chosen:
        for kind in KINDS.values():
            if task.method in kind.variants:  # other methods may use it too
                kind.path(folder, task.source, task.seed, task.method).unlink(missing_ok=True)


def _policies(options: EvaluationOptions, folder: Path) -> list[CalibratePolicy]:
    """Return the calibrations that are missing, where the policy is evaluated."""
    if POLICY not in options.methods:
        return []
    return [CalibratePolicy(*pair) for pair in _pairs(options, folder) if read_policy(folder, pair[1], pair[0]) is None]


def _teachings(kind: Kind[Any, Any, Any], options: EvaluationOptions, folder: Path) -> list[Teach]:
    """Return the teachings of this kind that the methods need and that are missing."""
    return [
        Teach(kind.name, seed, recipe, name)
        for seed, recipe in _pairs(options, folder)
        for name in kind.needed(options.methods)
        if not kind.path(folder, recipe, seed, name).exists()
    ]


def _pairs(options: EvaluationOptions, folder: Path) -> list[tuple[int, str]]:
    """Return every seed with every recipe asked for."""
    recipes = recipes_of(folder, options.augment)
    return [(seed, recipe) for seed in range(options.seeds) for recipe in recipes]
