"""The guard ends its command with its parent, and never signals anything else."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import acclimate.infra.guard

GUARD = [sys.executable, "-I", "-S", str(acclimate.infra.guard.__file__)]
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
)
SLEEP = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"]


def start(log: Path, command: list[str], limit_s: float = 10.0) -> tuple["subprocess.Popen[bytes]", int]:
    guard = subprocess.Popen(
        [*GUARD, str(limit_s), str(log), *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    assert guard.stdout is not None
    with guard.stdout as output:
        return guard, int(output.readline().split()[1])


def end(guard: "subprocess.Popen[bytes]") -> int:
    """Close the guard's standard input, as the parent's death does."""
    assert guard.stdin is not None
    guard.stdin.close()
    return guard.wait(20)


def gone(pid: int) -> bool:
    """Tell whether no process has this id, or only a dead one that nobody waited for."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def test_a_parent_that_goes_away_takes_the_command_along(tmp_path: Path) -> None:
    guard, pid = start(tmp_path / "log", SLEEP)
    assert end(guard) == 128 + signal.SIGTERM
    assert gone(pid)


def test_a_command_deaf_to_sigterm_is_killed_after_the_limit(tmp_path: Path) -> None:
    log = tmp_path / "log"
    guard, pid = start(log, [sys.executable, "-I", "-S", "-c", STUBBORN], limit_s=0.2)
    while "deaf" not in log.read_text():
        time.sleep(0.02)
    assert end(guard) == 128 + signal.SIGKILL
    assert gone(pid)


def test_a_command_does_not_survive_a_killed_guard(tmp_path: Path) -> None:
    guard, pid = start(tmp_path / "log", SLEEP)
    guard.kill()
    end(guard)
    while not gone(pid):  # the kernel's doing, so soon but not at once
        time.sleep(0.02)


def test_signals_asked_for_by_pipe_reach_the_command_and_its_exit_is_reported(tmp_path: Path) -> None:
    guard, pid = start(tmp_path / "log", SLEEP)
    assert guard.stdin is not None
    guard.stdin.write(b"signal %d\n" % signal.SIGUSR1)  # SIGHUP may be ignored where tests run under nohup
    assert guard.wait(20) == 128 + signal.SIGUSR1
    guard.stdin.close()
    assert gone(pid)


def test_what_the_command_writes_lands_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    guard, _ = start(log, [sys.executable, "-I", "-S", "-c", "import sys; print('out'); sys.exit(7)"])
    assert guard.wait(20) == 7
    end(guard)
    assert log.read_text() == "out\n"
