"""Do the jobs of an evaluation in a worker process: make a source, or run one method over one stream."""

import base64
import hashlib
import time
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from acclimate.adaptation.data.corruptions import centre_and_scale
from acclimate.adaptation.errors import NotAdaptable
from acclimate.adaptation.evaluation.harm import block_length, label_run
from acclimate.adaptation.evaluation.run import run_stream
from acclimate.adaptation.evaluation.scoring import score, tail_start, top_share
from acclimate.adaptation.evaluation.streams import Stream, make_stream
from acclimate.adaptation.method import Method
from acclimate.adaptation.methods.catalogue import make_method
from acclimate.streams.lab.evaluate.options import EvaluationOptions
from acclimate.streams.lab.evaluate.recordings import Recordings, load_data
from acclimate.streams.lab.evaluate.tasks import GroupScores, Result, Task
from acclimate.streams.lab.study.code_state import code_digest
from acclimate.streams.lab.study.jobs import SourceJob, SourceMaker, set_up_worker
from acclimate.streams.lab.study.memory import peak_bytes, reset_peak, resident_bytes

__all__ = ["TaskRunner", "score_group", "start_worker", "unpack_bits"]


def start_worker(options: EvaluationOptions, folder: Path) -> "TaskRunner":
    """Set this process up and load what all jobs share."""
    set_up_worker()
    return TaskRunner(options, folder, load_data(options))


class TaskRunner:
    """Does jobs, and keeps the sources, methods and streams that it needed last.

    Args:
        options: The options of the evaluation.
        folder: The folder that keeps the sources.
        recordings: Source and target; only streams and scores are made from the target.
    """

    def __init__(self, options: EvaluationOptions, folder: Path, recordings: Recordings) -> None:
        self._options, self._target = options, recordings.target
        self._centre, self._scale = centre_and_scale(recordings.source.source.windows)
        self._sources = SourceMaker(folder, recordings.source, options.epochs)
        self._code = code_digest()
        self._method = lru_cache(maxsize=64)(self._make_method)
        self._stream = lru_cache(maxsize=64)(self._make_stream)

    def __call__(self, job: SourceJob | Task) -> Any:
        """Do one job and return its result for the parent."""
        return self._run(job) if isinstance(job, Task) else self._sources.do(job)

    def _run(self, task: Task) -> Result:
        try:
            method = self._method(task.method, task.source, task.seed)
        except NotAdaptable as error:  # such as LeanTTA on rows without a time axis: a finding, not a failure
            return {"code": self._code, "cannot": str(error), "groups": []}
        stream = self._stream(task.group, task.stream, task.seed)
        measured = reset_peak()
        before = resident_bytes()
        # CPU time of the process: other processes on the machine hardly change it.
        answers = run_stream(method, stream.windows, task.batch_size, time.process_time)
        peak = peak_bytes() if measured else None
        return {
            "code": self._code,
            "model": self._sources.load(task.source, task.seed).digest,
            "run": {
                "seconds_per_window": answers.seconds / len(stream),
                "peak_memory_bytes": peak,
                "working_memory_bytes": None if peak is None or before is None else max(0, peak - before),
                "state_bytes": answers.state_bytes,
                "updates": answers.updates,
                "resets": answers.resets,
                "selected": answers.selected,
                "adapted_share": None if answers.adapted is None else answers.adapted / len(stream),
                "stateless": method.stateless,
                "adapted_tensors": len(method.adapts),
            },
            "groups": [score_group(stream, index, answers.probabilities) for index in range(len(stream.groups))],
        }

    def _make_method(self, name: str, recipe: str, seed: int) -> Method:
        source = self._sources.load(recipe, seed)
        return make_method(name, source.context, source.prepared)

    def _make_stream(self, group: str, kind: str, seed: int) -> Stream:
        members = (group,) if group else tuple(name for name, _ in self._target.streams())
        return make_stream(self._target, members, kind, seed, self._centre, self._scale, self._options.severity)


def score_group(stream: Stream, index: int, probabilities: NDArray[np.float32]) -> GroupScores:
    """Return the scores of one group's answers, which of them were right, and how to pair them with others.

    Args:
        stream: The stream that was answered.
        index: The group's place in it.
        probabilities: (n, K) answers to the whole stream, in its order.

    Raises:
        ContractError: A probability is not finite.
    """
    mine = stream.member == index
    given, labels, severity = probabilities[mine], stream.labels[mine], stream.severity[mine]
    scores = score(given, labels)
    answers = given.argmax(axis=1)
    right = answers == labels
    recorded = np.argsort(stream.row[mine], kind="stable")
    tail = tail_start(labels)
    returned = stream.returned[mine]
    levels = np.ceil(severity).astype(np.int64)
    return {
        "group": stream.groups[index],
        "n": scores.n,
        "accuracy": scores.accuracy,
        "macro_f1": scores.macro_f1,
        "worst_class_recall": scores.worst_class_recall,
        "nll": scores.nll,
        "ece": scores.ece,
        "data": _digest(stream.windows[mine], labels),
        "right": _pack(right),
        "recorded": _pack(right[recorded]),
        "block": block_length(labels[recorded]),
        "label_run": label_run(labels[recorded]),
        "tail_share": None if tail is None else top_share(answers[tail:]),
        "corruption": stream.corruption,
        "severity": float(severity.max()) if stream.corruption else None,
        "by_severity": [
            [int(level), int((levels == level).sum()), int(right[levels == level].sum())] for level in np.unique(levels)
        ]
        if stream.corruption
        else [],
        "returned": [int(returned.sum()), int(right[returned].sum())],
    }


def unpack_bits(entry: GroupScores, order: Literal["right", "recorded"] = "right") -> NDArray[np.bool_]:
    """Return which windows of a group were answered right, (n,), in the order of the stream or of the recording."""
    packed = np.frombuffer(base64.b64decode(entry[order]), dtype=np.uint8)
    return np.unpackbits(packed, count=entry["n"]).astype(np.bool_)


def _pack(bits: NDArray[np.bool_]) -> str:
    return base64.b64encode(np.packbits(bits).tobytes()).decode()


def _digest(windows: NDArray[np.float32], labels: NDArray[np.int64]) -> str:
    digest = hashlib.blake2b(digest_size=6)
    digest.update(np.ascontiguousarray(windows).tobytes())
    digest.update(np.ascontiguousarray(labels).tobytes())
    return digest.hexdigest()
