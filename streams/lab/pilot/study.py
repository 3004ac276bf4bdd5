"""Run a pilot's jobs in stages, and gather their findings in one mapping of plain values.

1  choose how to train; the plain source is trained beside it       2  train what was chosen, calibrate the policy,
   leave the source's devices out                                    3  measure and follow every device

Nothing is trained twice: where ``auto`` stays with the plain recipe, the plain source is the one that is used. The
figures for source devices that were left out come from small trainings, as the policy's own do.
"""

import multiprocessing
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from adaptation.data.dataset import Dataset
from adaptation.methods.policy_settings import PolicySettings
from adaptation.model.robust import folds
from streams.lab.making.source_model import choose_recipe
from streams.lab.pilot.gains import RUNGS, DeviceScore, gain_of, simulated_scores
from streams.lab.pilot.jobs import FollowDevice, Job, LeaveOut, MakeSource, MeasureSource, words
from streams.lab.pilot.options import PilotOptions
from streams.lab.pilot.work import bundle_folder, start_worker
from streams.lab.study.choices import KeptChoice
from streams.lab.study.jobs import CalibratePolicy, ChooseRecipe
from streams.lab.study.processes import finish_all, run_jobs
from streams.lab.study.recipes import PLAIN

__all__ = ["Findings", "Progress", "run_study"]

Findings = dict[str, Any]
Progress = Callable[[str, int, int], None]  # job, steps done, of; 0 of 0: the job is over


def run_study(options: PilotOptions, dataset: Dataset, folder: Path, progress: Progress) -> Findings:
    """Do everything that takes time; what is trained stays in ``folder``.

    Args:
        options: The options of the pilot.
        dataset: The recordings that `streams.lab.pilot.work.load_data` gives for these options.
        folder: An empty folder, which keeps the bundles.
        progress: A function that is called from another thread where there are worker processes.

    Raises:
        ConfigError, DataError, ContractError: A job raised it.
    """
    stages = _Stages(options, folder, progress)
    choice: KeptChoice | None = None
    sources: dict[str, Any] = {}
    recipe = options.augment
    if options.augment == "auto":
        chosen, made = ChooseRecipe(options.seed), MakeSource(PLAIN)
        results = stages.run([chosen, made])
        choice, sources[PLAIN] = results[chosen], results[made]
        recipe = results[chosen].recipe
    elif options.augment != PLAIN:
        recipe = str(choose_recipe(dataset, options.augment, options.seed).augmentation)  # checked before any work
    wanted = [MakeSource(name) for name in dict.fromkeys((recipe, PLAIN)) if name not in sources]
    source = dataset.source
    left_out = [LeaveOut(recipe, fold) for fold in range(len(folds(source.labels, source.groups)))]
    calibration = CalibratePolicy(options.seed, recipe)
    results = stages.run([*wanted, calibration, *left_out])
    sources |= {job.recipe: results[job] for job in wanted}
    policy: PolicySettings = results[calibration]
    target = dataset.target
    assert target is not None  # load_data has checked it
    names = sorted(target.streams(), key=lambda item: item[1].start - item[1].stop)  # the longest first
    measured = MeasureSource(recipe)
    follow = [FollowDevice(recipe, name, policy) for name, _ in names]
    results = stages.run([*follow, measured])
    by_name = {job.device: results[job] for job in follow}
    devices = [by_name[name] for name, _ in target.streams()]
    return {
        "data": dataset.name,
        "selection": dataset.selection,
        "classes": list(dataset.class_names),
        "channels": list(dataset.channel_names),
        "adaptable": dataset.length > 1,
        "labelled": options.labelled,
        "seed": options.seed,
        "recipe": recipe,
        "choice": None if choice is None else _told(choice),
        "sources": sources,
        "bundle": str(bundle_folder(folder, recipe)),
        "source_devices": results[measured]["devices"],
        "source_windows": len(source),
        "engine_seconds_per_window": results[measured]["engine_seconds_per_window"],
        "policy": asdict(policy),
        "devices": [_plain(device) for device in devices],
        "cost": _cost(devices),
        **_gains(devices, [results[job] for job in left_out], policy, options),
    }


class _Stages:
    """Lists of jobs, one after the other, with progress from the workers."""

    def __init__(self, options: PilotOptions, folder: Path, progress: Progress) -> None:
        self._options, self._folder, self._progress = options, folder, progress
        self.results: dict[Job, Any] = {}

    def run(self, jobs: Sequence[Job]) -> dict[Job, Any]:
        """Do the jobs and return their results."""
        if self._options.jobs == 0:
            self._collect(jobs, self._progress)
            return self.results
        # Workers report through a pipe; a thread hands on what comes, until it is told that no more will.
        queue = multiprocessing.get_context("spawn").SimpleQueue()
        hand_on = threading.Thread(target=self._hand_on, args=(queue,), daemon=True)
        hand_on.start()
        try:
            self._collect(jobs, _Sender(queue))
        finally:
            queue.put(None)
            hand_on.join(5)
        return self.results

    def _hand_on(self, queue: Any) -> None:
        while (message := queue.get()) is not None:
            self._progress(*message)

    def _collect(self, jobs: Sequence[Job], report: Progress) -> None:
        arguments = (self._options, self._folder, report)

        def keep(_done: int, job: Job, result: Any) -> None:
            self.results[job] = result
            report(words(job), 0, 0)

        finish_all(run_jobs(jobs, start_worker, arguments, self._options.jobs), keep, words)


class _Sender:
    """Report into a queue; unlike a bound method it crosses to a spawned process."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def __call__(self, job: str, done: int, of: int) -> None:
        self._queue.put((job, done, of))


def _told(choice: KeptChoice) -> Findings:
    return {name: value for name, value in asdict(choice).items() if name != "code"}


def _plain(device: Findings) -> Findings:
    scores = device["scores"]
    told = None if scores is None else {name: asdict(score) for name, score in scores.items()}
    return device | {"scores": told}


def _cost(devices: Sequence[Findings]) -> Findings:
    """Return time and memory of each rung over all devices; None where it cannot adapt this network."""
    cost: Findings = {}
    for name in ("source", *RUNGS):
        runs = [device["runs"][name] for device in devices]
        if any(run is None for run in runs):
            cost[name] = None
            continue
        seconds, windows = sum(run["seconds"] for run in runs), sum(run["windows"] for run in runs)
        cost[name] = {
            "seconds_per_window": seconds / windows,
            "state_bytes": max(run["state_bytes"] for run in runs),
            "changed": sum(run["changed"] * run["windows"] for run in runs) / windows,
        }
    return cost


def _gains(
    devices: Sequence[Findings],
    left_out: Sequence[dict[str, list[DeviceScore]]],
    policy: PolicySettings,
    options: PilotOptions,
) -> Findings:
    """Return the gains on the target, where it has labels, and those that the source's own devices let expect."""
    measured = None
    if options.labelled:
        names = dict.fromkeys(name for device in devices for name in device["scores"])
        measured = {name: gain_of([device["scores"][name] for device in devices], options.seed) for name in names}
    table = [asdict(score) for score in policy.table]
    if left_out:
        expected = {name: [score for part in left_out for score in part.get(name, [])] for name in RUNGS}
        judged_by = "left-out source devices"
    else:
        expected = simulated_scores(table)
        judged_by = "simulated shifts"
    # Behind a gate the policy does nothing on devices inside the source's range, and these all are; its limits say so.
    # What it may do unasked, it does as its table has it.
    if not policy.gated:
        expected["policy"] = [
            DeviceScore.without_interval(row["device"], row["source_accuracy"], row["accuracy"])
            for row in table
            if row["rung"] == policy.rung
        ]
    return {
        "measured": None
        if measured is None
        else {name: asdict(gain) if gain else None for name, gain in measured.items()},
        "expected": {
            name: asdict(gain) for name, scores in expected.items() if (gain := gain_of(scores, options.seed))
        },
        "expected_by": judged_by,
        "expected_devices": {name: [asdict(score) for score in scores] for name, scores in expected.items() if scores},
    }
