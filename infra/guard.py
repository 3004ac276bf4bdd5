"""Run one command and end it when the process that asked for it is gone.

A program of its own, standard library only: `python -I guard.py LIMIT_S LOG COMMAND...`. The parent holds the other end
of standard input. A line `signal N` there is passed on to the command; end of file (the parent closed it, or died, by
SIGKILL too) means SIGTERM, and SIGKILL after LIMIT_S. On standard output comes `pid N` once, and the guard exits
when the command does, with its code (128 + signal number where a signal ended it).

The guard is the command's only parent and is told by pipe what to do, so no signal can hit a process that took over the
id of a dead one. If the guard itself is killed, the Linux kernel kills the command (PR_SET_PDEATHSIG).
"""

import ctypes
import os
import select
import signal
import subprocess
import sys

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1
_POLL_S = 1.0


def main(arguments: list[str]) -> int:
    """Run the command of `arguments` (limit, log file, command...) and return its exit code."""
    limit_s, log, command = float(arguments[0]), arguments[1], arguments[2:]
    parent = os.getppid()
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def die_with_guard() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    # A child's end and a SIGTERM to the guard both wake the select below through this pipe.
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    stop_requests: list[int] = []
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.signal(signal.SIGTERM, lambda number, frame: stop_requests.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then stops us in order

    with open(log, "ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            close_fds=False,  # the lock of the data folder is inherited, and held for as long as the command lives
            preexec_fn=die_with_guard,
        )
    try:
        os.write(1, f"pid {child.pid}\n".encode())
    except OSError:
        stop_requests.append(signal.SIGTERM)  # the parent is gone already

    pending, open_input = b"", True
    while child.poll() is None:
        # A forked sibling may hold the pipe open after the parent's death: its id is watched as well.
        if stop_requests or not open_input or os.getppid() != parent:
            return _stop(child, limit_s)
        ready, _, _ = select.select([0, wake_read], [], [], _POLL_S)
        if wake_read in ready:
            os.read(wake_read, 4096)
        if 0 in ready:
            chunk = os.read(0, 4096)
            open_input = bool(chunk)
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                child.send_signal(int(line.removeprefix(b"signal ")))
    return _exit_code(child.returncode)


def _stop(child: "subprocess.Popen[bytes]", limit_s: float) -> int:
    child.terminate()
    try:
        child.wait(limit_s)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    return _exit_code(child.returncode)


def _exit_code(returncode: int) -> int:
    return returncode if returncode >= 0 else 128 - returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
