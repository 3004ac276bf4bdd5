"""Worker processes that share a list of jobs, one at a time each.

They are started with spawn, so that no state of this process leaks into results. A worker ends when its pipe closes or
when its parent is gone, even killed. A worker that dies itself (memory, a signal) ends the run with a message that
names its job.
"""

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from acclimate.adaptation.errors import AcclimateError, ConfigError, ContractError, DataError

__all__ = ["EXPECTED", "FailedJob", "Failure", "StageProgress", "WorkerDied", "Workers", "finish_all", "run_jobs"]

Work = Callable[[Any], Any]
StageProgress = Callable[[str, int, int, str], None]  # stage, jobs done, of, what came last

# Exceptions that users are expected to meet, by the name that a failure carries. Any other is a bug.
EXPECTED: Mapping[str, type[AcclimateError]] = {
    "ConfigError": ConfigError,
    "NotAdaptable": ConfigError,
    "DataError": DataError,
    "ContractError": ContractError,
}


class WorkerDied(AcclimateError):
    """A worker process ended while it had a job; the same command may go on."""


@dataclass(frozen=True)
class Failure:
    """An exception in a worker.

    Attributes:
        kind: The name of the exception's class.
        message: Its text.
        trace: Its traceback.
    """

    kind: str
    message: str
    trace: str


@dataclass(frozen=True)
class FailedJob:
    """A job that ended in an exception; nothing of it is kept, so the same command tries it again."""

    job: Any
    failure: Failure

    def __str__(self) -> str:
        return f"{self.job}: {self.failure.kind}: {self.failure.message}"

    @property
    def expected(self) -> bool:
        """True where users are expected to meet the exception; any other is a bug."""
        return self.failure.kind in EXPECTED


@dataclass(frozen=True)
class Workers:
    """The worker processes of a study.

    Attributes:
        make_work, arguments: The same as in `run_jobs`.
        count: The number of processes; 0 does everything in this one.
        progress: A function that is called after each job.
    """

    make_work: Callable[..., Work]
    arguments: tuple[Any, ...]
    count: int
    progress: StageProgress

    def finish(self, stage: str, jobs: Sequence[Any]) -> None:
        """Do jobs that must all succeed; see `finish_all`."""
        work = run_jobs(jobs, self.make_work, self.arguments, self.count)
        finish_all(work, lambda done, job, _: self.progress(stage, done, len(jobs), str(job)))

    def attempt(self, stage: str, jobs: Sequence[Any], of: int, keep: Callable[[Any, Any], None]) -> list[FailedJob]:
        """Do jobs of which any may fail, and return those that did.

        Args:
            stage: The name of all this for ``progress``.
            jobs: The jobs that are left to do.
            of: The number of jobs in all, with those that were done before.
            keep: A function that is called with each job and its result.

        Raises:
            WorkerDied: A worker did.
        """
        done, failed = of - len(jobs), []
        self.progress(stage, done, of, "")
        for job, result in run_jobs(jobs, self.make_work, self.arguments, self.count):
            if isinstance(result, Failure):
                failed.append(FailedJob(job, result))
            else:
                keep(job, result)
            done += 1
            self.progress(stage, done, of, str(job))
        return failed


def run_jobs(
    jobs: Sequence[Any], make_work: Callable[..., Work], arguments: tuple[Any, ...], workers: int
) -> Iterator[tuple[Any, Any]]:
    """Yield each job with its result, or with a `Failure`, as they come.

    Args:
        jobs: The jobs; they are handed out in this order.
        make_work: A function at module level, called once in each worker; it returns the function that does a job.
        arguments: The arguments of ``make_work``.
        workers: The number of processes; 0 does everything in this one.

    Raises:
        WorkerDied: A worker did.
    """
    if not jobs:
        return
    if workers == 0:
        work = make_work(*arguments)
        for job in jobs:
            yield job, _attempt(work, job)
        return
    context = multiprocessing.get_context("spawn")
    waiting = list(reversed(jobs))
    running: dict[Connection, tuple[SpawnProcess, Any]] = {}
    try:
        for _ in range(min(workers, len(jobs))):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, make_work, arguments), daemon=True)
            process.start()
            theirs.close()
            running[ours] = (process, waiting.pop())
            _hand(ours, *running[ours])
        while running:
            for connection in wait(list(running)):
                assert isinstance(connection, Connection)
                process, job = running.pop(connection)
                try:
                    result = connection.recv()
                except (EOFError, ConnectionError) as error:
                    raise _died(process, job) from error
                died = None
                if waiting:
                    running[connection] = (process, waiting.pop())
                    try:
                        _hand(connection, *running[connection])
                    except WorkerDied as error:
                        died = error
                else:
                    connection.close()
                    process.join(5)
                yield job, result
                if died is not None:  # after what it had done before has been counted
                    raise died
    finally:
        for process, _ in running.values():
            process.kill()


def finish_all(
    work: Iterable[tuple[Any, Any]], after_job: Callable[[int, Any, Any], None], words: Callable[[Any], str] = str
) -> None:
    """Go through jobs that must all succeed; the first failure ends it.

    Args:
        work: Jobs and results, as `run_jobs` yields them.
        after_job: A function that is called with the number of jobs that are done, the last job and its result.
        words: A function that gives the name of a job.

    Raises:
        AcclimateError: A job met an expected error; it is named.
        RuntimeError: A job met a bug; with its trace.
    """
    for done, (job, result) in enumerate(work, start=1):
        if isinstance(result, Failure):
            error = EXPECTED.get(result.kind)
            if error is None:
                raise RuntimeError(f"{words(job)} failed\n{result.trace}")
            raise error(f"{words(job)}: {result.message}")
        after_job(done, job, result)


def _hand(connection: Connection, process: SpawnProcess, job: Any) -> None:
    try:
        connection.send(job)
    except ConnectionError as error:  # BrokenPipeError: it ended between two jobs
        raise _died(process, job) from error


def _died(process: SpawnProcess, job: Any) -> WorkerDied:
    process.join(5)
    return WorkerDied(
        f"a worker process ended (exit code {process.exitcode}) while it did: {job}. If memory ran out, use fewer "
        "--jobs; the same command goes on where this one ended"
    )


def _serve(connection: Connection, make_work: Callable[..., Work], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work = make_work(*arguments)
    except Exception as error:
        failure = _failure(error)
        work = lambda _job: failure  # noqa: E731
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        connection.send(_attempt(work, job))


def _attempt(work: Work, job: Any) -> Any:
    try:
        return work(job)
    except Exception as error:  # reported as the job's result; the caller decides
        return _failure(error)


def _failure(error: Exception) -> Failure:
    return Failure(type(error).__name__, str(error), "".join(traceback.format_exception(error)))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
