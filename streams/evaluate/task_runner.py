"""One job in a worker process: choose a recipe, train a source, or run one method over one stream."""

import base64
import hashlib
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import adaptation
from adaptation.corruptions import centre_and_scale
from adaptation.dataset import Dataset
from adaptation.errors import ConfigError
from adaptation.evaluation.harm import block_length
from adaptation.evaluation.run import run_stream
from adaptation.evaluation.scoring import score, tail_start, top_share
from adaptation.evaluation.streams import Stream, every, make_stream
from adaptation.methods.catalogue import make_method
from adaptation.methods.method import Method
from infra.allocator import keep_freed_memory
from streams.commands.data_options import selected_dataset
from streams.evaluate.memory import peak_bytes, reset_peak, resident_bytes
from streams.evaluate.options import SIMULATION_SEED, EvaluationOptions
from streams.evaluate.prepare import (
    PreparedSource,
    choose_recipe,
    load_source,
    prepare_policy,
    prepare_source,
    save_source,
)
from streams.evaluate.tasks import Task

__all__ = [
    "CalibratePolicy",
    "ChooseRecipe",
    "TaskRunner",
    "TrainSource",
    "code_digest",
    "load_data",
    "start_worker",
    "unpack_bits",
]


@dataclass(frozen=True)
class ChooseRecipe:
    """Let ``auto`` choose, once for all seeds."""

    def __str__(self) -> str:
        return "choice of augmentation"


@dataclass(frozen=True)
class TrainSource:
    """Train the source of this seed with this recipe."""

    seed: int
    recipe: str

    def __str__(self) -> str:
        return f"training of source {self.recipe}, seed {self.seed}"


@dataclass(frozen=True)
class CalibratePolicy:
    """Find out what the policy may do with this source."""

    seed: int
    recipe: str

    def __str__(self) -> str:
        return f"calibration of the policy for source {self.recipe}, seed {self.seed}"


def load_data(options: EvaluationOptions) -> Dataset:
    """Load source and target, the target thinned to the stride.

    Raises:
        ConfigError: There is no target.
    """
    dataset = selected_dataset(SIMULATION_SEED, **options.selection)
    if dataset.target is None:
        raise ConfigError("an evaluation needs rows to stream: add --target KEY=VALUES")
    return replace(dataset, target=every(dataset.target, options.stride))


def start_worker(options: EvaluationOptions, folder: Path) -> "TaskRunner":
    """Set this process up and load what all jobs share."""
    keep_freed_memory()
    torch.set_num_threads(1)
    return TaskRunner(options, folder, load_data(options))


class TaskRunner:
    """Does jobs; keeps the sources, methods and streams that it needed last.

    Args:
        options: Of the evaluation.
        folder: Where sources are kept.
        dataset: As `load_data` gives it.
    """

    def __init__(self, options: EvaluationOptions, folder: Path, dataset: Dataset) -> None:
        self._options, self._folder, self._dataset = options, folder, dataset
        self._centre, self._scale = centre_and_scale(dataset.source.windows)
        self._code = code_digest()
        self._source = lru_cache(maxsize=4)(self._load_source)
        self._method = lru_cache(maxsize=64)(self._make_method)
        self._stream = lru_cache(maxsize=64)(self._make_stream)

    def __call__(self, job: ChooseRecipe | TrainSource | CalibratePolicy | Task) -> Any:
        """Do one job; what it returns goes back to the parent."""
        if isinstance(job, ChooseRecipe):
            return choose_recipe(self._folder, self._dataset, self._options.epochs)
        if isinstance(job, CalibratePolicy):
            return prepare_policy(self._folder, self._dataset, job.recipe, job.seed).rung
        if isinstance(job, TrainSource):
            prepared = prepare_source(self._dataset, job.recipe, job.seed, self._options.epochs)
            save_source(self._folder, prepared)
            return dict(prepared.facts)
        return self._run(job)

    def _run(self, task: Task) -> dict[str, Any]:
        try:
            method = self._method(task.method, task.source, task.seed)
        except ConfigError as error:  # such as LeanTTA on rows without a time axis: a finding, not a failure
            return {"code": self._code, "cannot": str(error), "groups": []}
        stream = self._stream(task.group, task.stream, task.seed)
        measured = reset_peak()
        before = resident_bytes()
        # CPU time of the process: other processes on the machine hardly change it.
        answers = run_stream(method, stream.windows, task.batch_size, time.process_time)
        peak = peak_bytes() if measured else None
        return {
            "code": self._code,
            "run": {
                "seconds_per_window": answers.seconds / len(stream),
                "peak_memory_bytes": peak,
                "working_memory_bytes": None if peak is None or before is None else max(0, peak - before),
                "state_bytes": answers.state_bytes,
                "updates": answers.updates,
                "resets": answers.resets,
                "selected": answers.selected,
                "stateless": method.stateless,
                "adapted_tensors": len(method.adapts),
            },
            "groups": [
                self._scored(stream, index, name, answers.probabilities) for index, name in enumerate(stream.groups)
            ],
        }

    def _scored(self, stream: Stream, index: int, name: str, probabilities: Any) -> dict[str, Any]:
        mine = stream.member == index
        given, labels, severity = probabilities[mine], stream.labels[mine], stream.severity[mine]
        answers = given.argmax(axis=1)
        right = answers == labels
        tail = tail_start(labels)
        returned = stream.returned[mine]
        levels = np.ceil(severity).astype(np.int64)
        return {
            "group": name,
            **asdict(score(given, labels)),
            "right": base64.b64encode(np.packbits(right).tobytes()).decode(),
            "block": block_length(labels),
            "tail_share": None if tail is None else top_share(answers[tail:]),
            "corruption": stream.corruption,
            "severity": float(severity.max()) if stream.corruption else None,
            "by_severity": [
                [int(level), int((levels == level).sum()), int(right[levels == level].sum())]
                for level in np.unique(levels)
            ]
            if stream.corruption
            else [],
            "returned": [int(returned.sum()), int(right[returned].sum())],
        }

    def _load_source(self, recipe: str, seed: int) -> PreparedSource:
        return load_source(self._folder, self._dataset, recipe, seed)

    def _make_method(self, name: str, recipe: str, seed: int) -> Method:
        return make_method(name, self._source(recipe, seed).context)

    def _make_stream(self, group: str, kind: str, seed: int) -> Stream:
        target = self._dataset.target
        assert target is not None  # load_data has checked it
        members = (group,) if group else tuple(name for name, _ in target.streams())
        return make_stream(target, members, kind, seed, self._centre, self._scale, self._options.severity)


def unpack_bits(entry: Mapping[str, Any]) -> Any:
    """Return which windows of a group were answered right, (n,) bool, in the order of the stream."""
    packed = np.frombuffer(base64.b64decode(entry["right"]), dtype=np.uint8)
    return np.unpackbits(packed, count=entry["n"]).astype(np.bool_)


def code_digest() -> str:
    """Return a digest of the science's source code, to tell results of different states of it apart."""
    digest = hashlib.sha256()
    root = Path(adaptation.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()[:12]
