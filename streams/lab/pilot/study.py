"""Run a pilot's jobs in stages, and gather their findings in one record.

1  choose how to train; the plain source is trained beside it       2  train what was chosen, calibrate the policy,
   leave the source's devices out                                    3  measure and follow every device

Nothing is trained twice: where ``auto`` stays with the plain recipe, the plain source is the one that is used. The
figures for source devices that were left out come from small trainings, as the policy's own do.
"""

import multiprocessing
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from acclimate.adaptation.data.dataset import Dataset
from acclimate.adaptation.methods.policy_settings import PolicySettings
from acclimate.adaptation.model.robust import folds
from acclimate.streams.lab.making.source_model import choose_recipe
from acclimate.streams.lab.pilot.findings import Cost, Findings, MadeSource, MeasuredSource, TargetDevice
from acclimate.streams.lab.pilot.gains import RUNGS, DeviceScore, Gain, gain_of, simulated_scores
from acclimate.streams.lab.pilot.jobs import FollowDevice, Job, LeaveOut, MakeSource, MeasureSource, words
from acclimate.streams.lab.pilot.options import PilotOptions
from acclimate.streams.lab.pilot.work import bundle_folder, start_worker
from acclimate.streams.lab.study.choices import KeptChoice
from acclimate.streams.lab.study.jobs import CalibratePolicy, ChooseRecipe
from acclimate.streams.lab.study.processes import finish_all, run_jobs
from acclimate.streams.lab.study.recipes import PLAIN

__all__ = ["Progress", "run_study"]

Progress = Callable[[str, int, int], None]  # job, steps done, of; 0 of 0: the job is over


def run_study(options: PilotOptions, dataset: Dataset, folder: Path, progress: Progress) -> Findings:
    """Do everything that takes time; what is trained stays in ``folder``.

    Args:
        options: The options of the pilot.
        dataset: The recordings that `acclimate.streams.lab.pilot.work.load_data` gives for these options.
        folder: An empty folder, which keeps the bundles.
        progress: A function that is called from another thread where there are worker processes.

    Raises:
        ConfigError, DataError, ContractError: A job raised it.
    """
    stages = _Stages(options, folder, progress)
    choice: KeptChoice | None = None
    sources: dict[str, MadeSource] = {}
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
    measure = MeasureSource(recipe)
    follow = [FollowDevice(recipe, name, policy) for name, _ in names]
    results = stages.run([*follow, measure])
    measured: MeasuredSource = results[measure]
    by_name: dict[str, TargetDevice] = {job.device: results[job] for job in follow}
    devices = tuple(by_name[name] for name, _ in target.streams())
    expected, expected_by = _expected([results[job] for job in left_out], policy)
    return Findings(
        data=dataset.name,
        selection=dataset.selection,
        classes=dataset.class_names,
        channels=dataset.channel_names,
        adaptable=dataset.length > 1,
        labelled=options.labelled,
        seed=options.seed,
        recipe=recipe,
        choice=choice,
        sources=sources,
        bundle=str(bundle_folder(folder, recipe)),
        source_devices=measured.devices,
        source_windows=len(source),
        engine_seconds_per_window=measured.engine_seconds_per_window,
        policy=policy,
        devices=devices,
        cost={name: _cost(name, devices) for name in ("source", *RUNGS)},
        measured=_measured(devices, options.seed) if options.labelled else None,
        expected={name: gain for name, scores in expected.items() if (gain := gain_of(scores, options.seed))},
        expected_by=expected_by,
        expected_devices={name: scores for name, scores in expected.items() if scores},
    )


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


def _cost(name: str, devices: Sequence[TargetDevice]) -> Cost | None:
    """Return time and memory of a rung over all devices; None where it cannot adapt this network."""
    runs = [run for device in devices if (run := device.runs[name]) is not None]
    if len(runs) < len(devices):
        return None
    windows = sum(run.windows for run in runs)
    return Cost(
        seconds_per_window=sum(run.seconds for run in runs) / windows,
        state_bytes=max(run.state_bytes for run in runs),
        changed=sum(run.changed * run.windows for run in runs) / windows,
    )


def _measured(devices: Sequence[TargetDevice], seed: int) -> dict[str, Gain | None]:
    """Return the gains on the target, which has labels."""
    scores = [device.scores for device in devices if device.scores is not None]
    names = dict.fromkeys(name for scored in scores for name in scored)
    return {name: gain_of([scored[name] for scored in scores], seed) for name in names}


def _expected(
    left_out: Sequence[dict[str, list[DeviceScore]]], policy: PolicySettings
) -> tuple[dict[str, list[DeviceScore]], str]:
    """Return the scores that the source's own devices let expect, by rung, and what they rest on."""
    if left_out:
        expected = {name: [score for part in left_out for score in part.get(name, [])] for name in RUNGS}
        judged_by = "left-out source devices"
    else:
        expected = simulated_scores(policy.table)
        judged_by = "simulated shifts"
    # Behind a gate the policy does nothing on devices inside the source's range, and these all are; its limits say so.
    # What it may do unasked, it does as its table has it.
    if not policy.gated:
        expected["policy"] = [
            DeviceScore.without_interval(row.device, row.source_accuracy, row.accuracy)
            for row in policy.table
            if row.rung == policy.rung
        ]
    return expected, judged_by
