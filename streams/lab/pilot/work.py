"""Do the jobs of a pilot in a worker process; trained sources are kept as bundles in a folder that all workers see."""

import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.adaptation.data.dataset import Dataset
from acclimate.adaptation.engine.engine import Engine
from acclimate.adaptation.errors import ConfigError, NotAdaptable
from acclimate.adaptation.evaluation.harm import block_length, paired_change
from acclimate.adaptation.evaluation.run import Answers, run_stream
from acclimate.adaptation.method import Method, SourceContext
from acclimate.adaptation.methods.catalogue import make_method
from acclimate.adaptation.methods.policy import Policy
from acclimate.adaptation.model.nets import Classifier, from_tensors
from acclimate.adaptation.model.robust import MAX_WINDOWS, folds
from acclimate.adaptation.model.train import default_epochs, default_spec, fit
from acclimate.registry.bundles.source_bundle import Bundle, read_bundle
from acclimate.streams.lab.making.source_context import source_context
from acclimate.streams.lab.making.source_model import make_source_bundle
from acclimate.streams.lab.pilot.findings import (
    EngineSeconds,
    MadeSource,
    MeasuredSource,
    RungRun,
    SourceDevice,
    TargetDevice,
)
from acclimate.streams.lab.pilot.gains import RUNGS, DeviceScore
from acclimate.streams.lab.pilot.jobs import FollowDevice, Job, LeaveOut, MakeSource, MeasureSource, words
from acclimate.streams.lab.pilot.options import BATCH_SIZE, PilotOptions
from acclimate.streams.lab.pilot.shifts import channel_levels, course, refused_share, shift_figures
from acclimate.streams.lab.pilot.watch import WatchedPolicy
from acclimate.streams.lab.study.jobs import CalibratePolicy, ChooseRecipe, SourceMaker, set_up_worker
from acclimate.streams.lab.study.recipes import PLAIN, augmentation_of
from acclimate.streams.lab.study.selection import selected_dataset

__all__ = ["Report", "Worker", "bundle_folder", "load_data", "start_worker"]

Report = Callable[[str, int, int], None]  # job, steps done, of

_FOLD_WINDOWS_IN_ALL = 16_000  # windows times epochs of one small training
_FOLD_LEAST_EPOCHS = 6
_TIMED_WINDOWS = 1024


def load_data(options: PilotOptions) -> Dataset:
    """Load source and target.

    Raises:
        ConfigError: There is no target.
    """
    dataset = selected_dataset(options.seed, **options.selection)
    if dataset.target is None:
        raise ConfigError("a pilot needs recordings of other devices than the source's: add --target KEY=VALUES")
    return dataset


def start_worker(options: PilotOptions, folder: Path, report: Report) -> "Worker":
    """Set this process up and load the data."""
    set_up_worker()
    return Worker(options, folder, report, load_data(options))


def bundle_folder(folder: Path, recipe: str) -> Path:
    """Return where a source's bundle is kept."""
    return folder / ("source-plain" if recipe == PLAIN else "source-robust")


class Worker:
    """Does jobs, and keeps the models that it needed last.

    Args:
        options: The options of the pilot.
        folder: The folder that keeps the bundles.
        report: A function that is told of the steps of a job.
        dataset: The recordings that `load_data` gives.
    """

    def __init__(self, options: PilotOptions, folder: Path, report: Report, dataset: Dataset) -> None:
        self._options, self._folder, self._report, self._dataset = options, folder, report, dataset
        self._spec = default_spec(dataset)
        self._sources = SourceMaker(folder, dataset)
        self._bundle = lru_cache(maxsize=2)(self._read_bundle)
        self._context = lru_cache(maxsize=2)(self._make_context)

    def __call__(self, job: Job) -> Any:
        """Do one job and return its result for the parent."""
        match job:
            case ChooseRecipe() | CalibratePolicy():
                return self._sources.do(job, lambda done, of, _what: self._report(words(job), done, of))
            case MakeSource():
                return self._make_source(job)
            case LeaveOut():
                return self._leave_out(job)
            case MeasureSource():
                return self._measure_source(job)
            case FollowDevice():
                return self._follow(job)

    def _make_source(self, job: MakeSource) -> MadeSource:
        def progress(epoch: int, of: int, _loss: float, _accuracy: float) -> None:
            self._report(words(job), epoch, of)

        made = make_source_bundle(
            self._dataset,
            bundle_folder(self._folder, job.recipe),
            self._options.seed,
            epochs=self._options.epochs,
            augment=job.recipe,
            progress=progress,
        )
        trained = made.trained
        return MadeSource(
            digest=made.digest,
            held_out_accuracy=trained.accuracy,
            held_out_by=trained.held_out_by,
            held_out_groups=trained.held_out_groups,
            threshold=made.settings.threshold,
        )

    def _leave_out(self, job: LeaveOut) -> dict[str, list[DeviceScore]]:
        source = self._dataset.source
        _, test = folds(source.labels, source.groups)[job.fold]
        rows = np.flatnonzero(~test)
        rows = rows[np.linspace(0, rows.size - 1, min(MAX_WINDOWS, rows.size)).astype(np.int64)]
        epochs = min(default_epochs(rows.size), max(_FOLD_LEAST_EPOCHS, _FOLD_WINDOWS_IN_ALL // rows.size))

        def after_epoch(epoch: int, _loss: float, _model: Classifier) -> None:
            self._report(words(job), epoch, epochs)

        fitted = fit(
            source.windows[rows],
            source.labels[rows],
            self._spec,
            self._options.seed,
            epochs,
            augmentation_of(job.recipe),
            after_epoch,
        )
        context = source_context(fitted.model, source.windows[rows], source.labels[rows], self._options.seed)
        found: dict[str, list[DeviceScore]] = {}
        for device in np.unique(source.groups[test]):
            own = source.groups == device
            windows, labels = source.windows[own], source.labels[own]
            right = _right(_answer("source", context, windows), labels)
            for name in RUNGS:
                if name != "policy" and (answers := _answer(name, context, windows)) is not None:
                    score = _score(str(device), _right(answers, labels), right, labels)
                    found.setdefault(name, []).append(score)
        return found

    def _measure_source(self, job: MeasureSource) -> MeasuredSource:
        source, engine = self._dataset.source, self._bundle(job.recipe)[1]
        devices = []
        for name, part in source.streams():
            shift = shift_figures(engine.run(source.windows[part], adapted=False))
            devices.append(SourceDevice(name, part.stop - part.start, shift))
        sample = np.ascontiguousarray(source.windows[:_TIMED_WINDOWS])
        seconds = {}
        for mode, adapted in (("worker", True), ("source", False)):
            engine.run(sample, adapted=adapted)  # the first run allocates
            started = time.process_time()
            engine.run(sample, adapted=adapted)
            seconds[mode] = (time.process_time() - started) / len(sample)
        return MeasuredSource(tuple(devices), EngineSeconds(**seconds))

    def _follow(self, job: FollowDevice) -> TargetDevice:
        target = self._dataset.target
        assert target is not None  # load_data has checked it
        part = dict(target.streams())[job.device]
        windows, labels = target.windows[part], target.labels[part]
        context = self._context(job.recipe)
        outputs = self._bundle(job.recipe)[1].run(windows, adapted=False)
        policy = WatchedPolicy(Policy(context, job.policy))
        runs: dict[str, Answers | None] = {}
        names = ("source", *RUNGS)
        for done, name in enumerate(names):
            self._report(words(job), done, len(names))
            runs[name] = (
                run_stream(policy, windows, BATCH_SIZE, time.process_time)
                if name == "policy"
                else _answer(name, context, windows)
            )
        source = runs["source"]
        assert source is not None  # the source always answers
        plain = source
        if job.recipe != PLAIN:
            found = _answer("source", self._context(PLAIN), windows)
            assert found is not None
            plain = found
        return TargetDevice(
            device=job.device,
            windows=len(windows),
            shift=shift_figures(outputs),
            magnitude_curve=course(outputs.magnitude),
            levels=channel_levels(context, self._dataset, windows),
            refused=refused_share(context, windows),
            gate=policy.summary(),
            runs={name: None if answers is None else _run_facts(answers, source) for name, answers in runs.items()},
            scores=self._scores(job.device, runs, plain, labels) if self._options.labelled else None,
        )

    def _scores(
        self, device: str, runs: Mapping[str, Answers | None], plain: Answers, labels: NDArray[np.int64]
    ) -> dict[str, DeviceScore]:
        """Score every rung against the source of its recipe, and that (``robust``) against the plain one."""
        right = _right(runs["source"], labels)
        scores = {
            name: _score(device, _right(answers, labels), right, labels)
            for name, answers in runs.items()
            if name != "source" and answers is not None
        }
        return {"robust": _score(device, right, _right(plain, labels), labels), **scores}

    def _read_bundle(self, recipe: str) -> tuple[Bundle, Engine]:
        bundle = read_bundle(bundle_folder(self._folder, recipe))
        return bundle, bundle.engine()

    def _make_context(self, recipe: str) -> SourceContext:
        model = from_tensors(self._spec, self._bundle(recipe)[0].tensors)
        source = self._dataset.source
        return source_context(model, source.windows, source.labels, self._options.seed)


def _answer(name: str, context: SourceContext, windows: NDArray[np.float32]) -> Answers | None:
    """Run a method over a stream; None where it cannot adapt this network."""
    try:
        method: Method = make_method(name, context)
    except NotAdaptable:  # such as LeanTTA on rows without a time axis
        return None
    return run_stream(method, windows, BATCH_SIZE, time.process_time)


def _right(answers: Answers | None, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    assert answers is not None  # asked for only where the method answered
    right: NDArray[np.bool_] = answers.probabilities.argmax(axis=1) == labels
    return right


def _score(
    device: str, right: NDArray[np.bool_], source_right: NDArray[np.bool_], labels: NDArray[np.int64]
) -> DeviceScore:
    change = paired_change(right, source_right, block_length(labels))
    before, after = float(source_right.mean()), float(right.mean())
    return DeviceScore(device, before, after, change.mean, change.low, change.high, change.harmed)


def _run_facts(answers: Answers, source: Answers) -> RungRun:
    changed = answers.probabilities.argmax(axis=1) != source.probabilities.argmax(axis=1)
    return RungRun(
        seconds=answers.seconds,
        windows=len(answers.probabilities),
        state_bytes=answers.state_bytes,
        changed=float(changed.mean()),
    )
