"""Worker processes: every job answered, failures told, deaths noticed, and no orphan when the parent is killed."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from acclimate.adaptation.errors import ConfigError
from acclimate.streams.lab.study import processes
from acclimate.streams.lab.study.processes import Failure, WorkerDied, Workers, run_jobs


def make_square(offset: int) -> Callable[[object], object]:
    def work(job: object) -> object:
        if job == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if job == "fail":
            raise ValueError("three is wrong")
        assert isinstance(job, int)
        return job * job + offset

    return work


def make_nothing() -> Callable[[object], object]:
    raise ConfigError("no data here")


@pytest.mark.parametrize("workers", [0, 2])
def test_every_job_comes_back_with_its_result_or_its_failure(workers: int) -> None:
    results = dict(run_jobs([1, 2, "fail", 3], make_square, (10,), workers))
    failure = results.pop("fail")
    assert results == {1: 11, 2: 14, 3: 19}
    assert (failure.kind, failure.message) == ("ValueError", "three is wrong")
    assert "in work" in failure.trace
    assert not multiprocessing.active_children()


def test_of_jobs_that_may_fail_the_others_are_kept_and_all_are_counted() -> None:
    kept, told = [], []
    workers = Workers(make_square, (10,), 0, lambda *message: told.append(message))
    (failed,) = workers.attempt("squaring", [1, "fail", 3], 5, lambda job, result: kept.append((job, result)))
    assert kept == [(1, 11), (3, 19)]
    assert (str(failed), failed.expected) == ("fail: ValueError: three is wrong", False)
    assert told == [
        ("squaring", 2, 5, ""),
        ("squaring", 3, 5, "1"),
        ("squaring", 4, 5, "fail"),
        ("squaring", 5, 5, "3"),
    ]


def test_of_jobs_that_must_succeed_the_first_failure_ends_all() -> None:
    told = []
    workers = Workers(make_square, (0,), 0, lambda *message: told.append(message))
    with pytest.raises(RuntimeError, match="fail failed"):
        workers.finish("squaring", [2, "fail", 3])
    assert told == [("squaring", 1, 3, "2")]
    with pytest.raises(ConfigError, match="1: no data here"):
        Workers(make_nothing, (), 1, lambda *_: None).finish("squaring", [1])


def test_a_worker_that_cannot_begin_says_why_for_its_job() -> None:
    ((job, result),) = run_jobs([1], make_nothing, (), 1)
    assert job == 1
    assert isinstance(result, Failure)
    assert (result.kind, result.message) == ("ConfigError", "no data here")


def test_a_worker_that_is_killed_ends_the_run_and_names_its_job() -> None:
    with pytest.raises(WorkerDied, match=r"exit code -9\) while it did: die.*fewer --jobs"):
        list(run_jobs(["die"], make_square, (0,), 1))
    assert not multiprocessing.active_children()


def make_last_words() -> Callable[[object], object]:
    def work(job: object) -> object:
        threading.Timer(0.2, os._exit, (3,)).start()
        return job

    return work


def test_a_worker_that_ends_between_two_jobs_is_noticed_and_its_last_result_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hand, handed = processes._hand, []

    def late(connection: Any, process: Any, job: object) -> None:
        handed.append(job)
        if len(handed) > 1:
            process.join(30)  # it has answered and is gone: sending to it breaks the pipe
        hand(connection, process, job)

    monkeypatch.setattr(processes, "_hand", late)
    results = run_jobs([1, 2], make_last_words, (), 1)
    assert next(results) == (1, 1)
    with pytest.raises(WorkerDied, match=r"exit code 3\) while it did: 2"):
        next(results)


def test_no_jobs_start_no_process() -> None:
    assert list(run_jobs([], make_nothing, (), 4)) == []


def make_sleeper(folder: str) -> Callable[[object], object]:
    def work(_job: object) -> object:
        Path(folder, str(os.getpid())).touch()
        time.sleep(60)
        return None

    return work


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = (
        "from acclimate.streams.lab.study.processes import run_jobs\n"
        "from tests.streams.lab.study.test_processes import make_sleeper\n"
        f"if __name__ == '__main__': list(run_jobs([1, 2], make_sleeper, ({str(tmp_path)!r},), 2))\n"
    )
    (tmp_path / "main.py").write_text(script)
    root = Path(__file__).parents[4]
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "main.py"], env={**os.environ, "PYTHONPATH": str(root)}, cwd=root
    )
    try:
        pids = _wait_for(lambda: [int(p.name) for p in tmp_path.iterdir() if p.name.isdigit()], 2)
    finally:
        parent.kill()
        parent.wait()
    _wait_for(lambda: [pid for pid in pids if not _runs(pid)], 2)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _wait_for(found: Callable[[], list[int]], count: int) -> list[int]:
    end = time.monotonic() + 60
    while len(found()) < count:
        assert time.monotonic() < end
        time.sleep(0.05)
    return found()
