"""Make the sources, then do every run that is not kept yet, in worker processes."""

import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from acclimate.adaptation.continual.domains import alternate_stretches
from acclimate.adaptation.continual.experiment import Domain, Feedback, accuracy, run
from acclimate.adaptation.continual.labelled import Labelled
from acclimate.adaptation.continual.learner import Arrived, Learner
from acclimate.adaptation.continual.settings import LearnerSettings
from acclimate.adaptation.data.dataset import Dataset, Split
from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.evaluation.harm import block_length, paired_change
from acclimate.adaptation.evaluation.run import balanced_rows
from acclimate.adaptation.projection.report import distances, lipschitz
from acclimate.streams.lab.continual.options import FINE_TUNED, ContinualOptions, binding
from acclimate.streams.lab.continual.runs import FineTuned, Learned, Moved, Run, is_finished, keep_run
from acclimate.streams.lab.study.choices import recipes_of
from acclimate.streams.lab.study.code_state import code_digest
from acclimate.streams.lab.study.folder import open_folder
from acclimate.streams.lab.study.jobs import SourceJob, SourceMaker, make_sources, set_up_worker
from acclimate.streams.lab.study.processes import FailedJob, StageProgress, Workers
from acclimate.streams.lab.study.selection import SIMULATION_SEED, selected_dataset

__all__ = ["Recordings", "list_runs", "load_recordings", "run_study"]

_FINE_TUNING_EPOCHS = 10
_LEAST_FINE_TUNING_STEPS = 300
_SOURCE_WINDOWS = 3072  # to learn with new ones; 512 keep less of the source


@dataclass(frozen=True, eq=False)
class Recordings:
    """The recordings that sources are trained on, and those that are learned in turn.

    Attributes:
        dataset: Recordings without a target; sources are trained on their source.
        source: The source as a domain: stretches to train on, and stretches to judge on.
        domains: The groups of the target, in order.
    """

    dataset: Dataset
    source: Domain
    domains: tuple[Domain, ...]


def run_study(options: ContinualOptions, folder: Path, force: bool, progress: StageProgress) -> list[FailedJob]:
    """Do the runs that are not done yet; return those that failed, which the next call tries again.

    Raises:
        ConfigError: An option does not fit the data, or the folder is another's.
        DataError: The source makes no model, or a group is too short.
        WorkerDied: A worker process did.
    """
    load_recordings(options)  # refuses what no worker could use
    with open_folder(folder, binding(options), force):
        workers = Workers(_start_worker, (options, folder), options.jobs, progress)
        make_sources(folder, options.augment, options.seeds, partial(workers.finish, "preparing sources"))
        runs = list_runs(options, folder)
        missing = [each for each in runs if not is_finished(folder, each)]
        return workers.attempt("learning", missing, len(runs), partial(keep_run, folder))


def list_runs(options: ContinualOptions, folder: Path) -> list[Run]:
    """Return all runs: seed by seed, the reference of each source first."""
    runs = []
    for seed in range(options.seeds):
        for recipe in recipes_of(folder, options.augment):
            runs.append(Run(recipe, seed, FINE_TUNED, 1e-3, 1.0, 0.0))
            runs += [
                Run(recipe, seed, method, rate, fraction, wrong)
                for fraction in options.label_fractions
                for wrong in options.wrong
                for method in options.methods
                for rate in options.learning_rates
            ]
    return runs


def load_recordings(options: ContinualOptions) -> Recordings:
    """Load the recordings and cut each group into stretches to learn from and stretches to judge on.

    Raises:
        ConfigError: There is no target, or the options do not fit the file.
        DataError: The file's content is wrong, or a group is too short.
    """
    dataset = selected_dataset(SIMULATION_SEED, **options.selection)
    if dataset.target is None:
        raise ConfigError("continual learning needs groups to learn in turn: add --target KEY=VALUES")
    parts = [_cut(dataset.source, where) for _, where in dataset.source.streams()]
    learned, judged = (np.concatenate(rows) for rows in zip(*parts, strict=True))
    source = _domain("source", dataset.source, learned, judged)
    domains = tuple(_domain(name, dataset.target, *_cut(dataset.target, w)) for name, w in dataset.target.streams())
    return Recordings(replace(dataset, source=_take(dataset.source, learned), target=None), source, domains)


def _start_worker(options: ContinualOptions, folder: Path) -> "_Worker":
    set_up_worker()
    return _Worker(options, folder)


class _Worker:
    def __init__(self, options: ContinualOptions, folder: Path) -> None:
        self._options, self._data = options, load_recordings(options)
        self._sources = SourceMaker(folder, self._data.dataset)
        self._code = code_digest()

    def __call__(self, job: SourceJob | Run) -> Any:
        if not isinstance(job, Run):
            return self._sources.do(job)
        return self._fine_tune(job) if job.method == FINE_TUNED else self._learn(job)

    def _learner(self, job: Run, settings: LearnerSettings) -> Learner:
        windows, labels = self._data.source.windows, self._data.source.labels
        rows = torch.from_numpy(balanced_rows(labels.numpy(), min(_SOURCE_WINDOWS, len(labels)), job.seed))
        source = Labelled(windows[rows], labels[rows], torch.zeros_like(labels[rows]))
        model = self._sources.load(job.recipe, job.seed).context.model
        return Learner(model, source, self._data.dataset.classes, settings, job.seed)

    def _fine_tune(self, job: Run) -> FineTuned:
        """Teach each group alone, with all of its labels."""
        found = []
        for domain in self._data.domains:
            count = len(domain.labels)
            steps = max(_LEAST_FINE_TUNING_STEPS, _FINE_TUNING_EPOCHS * count // 64)
            learner = self._learner(job, LearnerSettings("naive", job.learning_rate, steps=steps, recent=count))
            arrived = Arrived(domain.windows, domain.labels, torch.ones_like(domain.labels))
            state, _ = learner.learn(learner.start(), arrived, finish=True)
            found.append(accuracy(learner.model(state), domain.judged_windows, domain.judged_labels))
        groups = [domain.name for domain in self._data.domains]
        return {"run": asdict(job), "code": self._code, "groups": groups, "accuracy": found}

    def _learn(self, job: Run) -> Learned:
        learner = self._learner(job, self._options.settings(job.method, job.learning_rate))
        feedback = Feedback(job.label_fraction, self._options.delay, wrong=job.wrong)
        data, clock = self._data, time.process_time
        outcome = run(learner, data.domains, data.source, feedback, data.dataset.classes, job.seed, clock)
        answered = list(zip(data.domains, outcome.right, outcome.source_right, strict=True))
        changes = [
            paired_change(right, source, block_length(domain.labels.numpy())) for domain, right, source in answered
        ]
        return {
            "run": asdict(job),
            "code": self._code,
            "groups": [domain.name for domain in data.domains],
            "matrix": outcome.matrix.values.tolist(),
            "start": outcome.matrix.start.tolist(),
            "source_accuracy": outcome.source_accuracy.tolist(),
            "prequential": [float(right.mean()) for right in outcome.right],
            "change": [change.mean for change in changes],
            "harmed": [change.harmed for change in changes],
            "regret": [int(source.sum()) - int(right.sum()) for _, right, source in answered],
            "efficiency": outcome.efficiency,
            "labels": outcome.labels,
            "steps": outcome.steps,
            "skipped": outcome.skipped,
            "seconds_per_step": outcome.seconds_per_step,
            "moved": self._moved(job, learner.model(outcome.state)),
        }

    def _moved(self, job: Run, after: nn.Module) -> Moved:
        """Return how far the last model is from the source, and what it may amplify."""
        before = self._sources.load(job.recipe, job.seed).context.model
        found = distances(after.state_dict(), before.state_dict())
        windows = self._data.source.judged_windows
        return {
            "relative": {each.name: each.relative for each in found if each.relative > 0},
            "lipschitz": lipschitz(after, windows)["network"],
            "source_lipschitz": lipschitz(before, windows)["network"],
        }


def _cut(split: Split, where: slice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    learned, judged = alternate_stretches(where.stop - where.start)
    return learned + where.start, judged + where.start


def _take(split: Split, rows: NDArray[np.int64]) -> Split:
    return Split(split.windows[rows], split.labels[rows], split.groups[rows], split.rows[rows], split.dropped)


def _domain(name: str, split: Split, learned: NDArray[np.int64], judged: NDArray[np.int64]) -> Domain:
    tensors = [torch.from_numpy(values[rows]) for rows in (learned, judged) for values in (split.windows, split.labels)]
    return Domain(name, *tensors)
