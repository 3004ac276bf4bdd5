"""The smallest pieces of work, and the file that remembers the finished ones.

``finished.jsonl`` gets one line per finished task, flushed to the disk before the next is counted, by the parent
process alone. A line that a kill cut short is dropped when the file is opened again; every other line is trusted, but
lines of an older format do not count as finished.
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, NotRequired, TypedDict

from acclimate.adaptation.errors import ContractError
from acclimate.registry.folder import replace_file
from acclimate.streams.lab.study.recipes import respelt

__all__ = [
    "GroupScores",
    "Result",
    "RunFigures",
    "Task",
    "append_finished",
    "current_name",
    "forget_tasks",
    "open_finished",
    "read_finished",
]

# Names of methods in folders from before, and what they are called now.
_FORMER_NAMES = {"lean-a": "leantta-a", "lean-b": "leantta", "lean-hybrid": "leantta-hybrid"}
_NEEDED = {"data", "recorded", "label_run"}  # of each group; an older format had none of them


@dataclass(frozen=True, order=True)
class Task:
    """One method on one stream.

    Attributes:
        source: The recipe that the source was trained with, ``none`` for the plain one.
        seed: The seed for everything.
        stream: The kind of stream.
        batch_size: The number of windows per call.
        method: The name in the catalogue.
        group: The device, or ``""`` for the one stream of all devices.
    """

    source: str
    seed: int
    stream: str
    batch_size: int
    method: str
    group: str

    def __str__(self) -> str:
        where = f"group {self.group}" if self.group else "all groups"
        return f"{self.method}, {self.stream}, batch {self.batch_size}, {where}, seed {self.seed}, source {self.source}"


def current_name(method: str) -> str:
    """Return what a method is called now; results from before may have its former name.

    >>> current_name("lean-b"), current_name("tent")
    ('leantta', 'tent')
    """
    return _FORMER_NAMES.get(method, method)


class RunFigures(TypedDict):
    """What a method did over one stream, and its cost."""

    seconds_per_window: float
    peak_memory_bytes: int | None
    working_memory_bytes: int | None
    state_bytes: int
    updates: int
    resets: int
    selected: int
    adapted_share: float | None
    stateless: bool
    adapted_tensors: int


class GroupScores(TypedDict):
    """Scores of one group's answers, and everything that pairs them with other answers to the same windows."""

    group: str
    n: int
    accuracy: float
    macro_f1: float
    worst_class_recall: float
    nll: float
    ece: float
    data: str  # digest of windows and labels
    right: str  # bits in the order of the stream, see `unpack_bits`
    recorded: str  # the same bits in the order of the recording
    block: int
    label_run: int
    tail_share: float | None
    corruption: str | None
    severity: float | None
    by_severity: list[list[int]]  # level, windows, right answers
    returned: list[int]  # windows of the clean last third of ``recurring``, right answers


class Result(TypedDict):
    """The result of a task as a line keeps it; a method that cannot adapt the network has a reason and no groups."""

    code: str
    groups: list[GroupScores]
    model: NotRequired[str]
    run: NotRequired[RunFigures]
    cannot: NotRequired[str]


def read_finished(path: Path) -> tuple[dict[Task, Result], int]:
    """Return the result of each finished task, the latest where one was run again, and the length of the sound part.

    Raises:
        ContractError: A line that is not the last one is damaged.
    """
    if not path.exists():
        return {}, 0
    content = path.read_bytes()
    sound = content.rfind(b"\n") + 1
    found = {}
    for number, line in enumerate(content[:sound].splitlines(), start=1):
        try:
            entry = json.loads(line)
            fields = entry["task"]
            source, method = respelt(fields["source"]), current_name(fields["method"])
            task = Task(**{**fields, "source": source, "method": method})
            if all(group.keys() >= _NEEDED for group in entry["groups"]):
                found[task] = entry
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ContractError(
                f"{path}, line {number} is damaged ({error!r}); delete that line and its task is run again"
            ) from error
    return found, sound


@contextmanager
def open_finished(path: Path) -> Iterator[BinaryIO]:
    """Open for `append_finished`; a last line that was cut short is removed."""
    _, sound = read_finished(path)
    with path.open("ab") as file:
        file.truncate(sound)
        yield file


def append_finished(file: BinaryIO, task: Task, result: Result) -> None:
    """Write one line and wait until it is on the disk."""
    line = json.dumps({"task": asdict(task), **result}, separators=(",", ":"), allow_nan=False)
    file.write(line.encode() + b"\n")
    file.flush()
    os.fsync(file.fileno())


def forget_tasks(path: Path, tasks: Iterable[Task]) -> int:
    """Forget these tasks where they are finished, all or nothing; return how many there were.

    Raises:
        ContractError: A line that is not the last one is damaged.
    """
    finished, _ = read_finished(path)
    dropped = set(tasks)
    kept = [entry for task, entry in finished.items() if task not in dropped]
    if len(kept) == len(finished):
        return 0
    lines = (json.dumps(entry, separators=(",", ":"), allow_nan=False) + "\n" for entry in kept)
    replace_file(path, "".join(lines).encode())
    return len(finished) - len(kept)
