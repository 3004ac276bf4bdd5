"""Programs in the background: they outlive the command that started them, and any later command finds and ends them.

Each has a record and a log in a folder. Its processes carry the record's path in their environment, and a process that
does not is never taken for one of them: ids are reused, and nobody else's process may be signalled.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acclimate.infra.errors import StackError

__all__ = ["Program", "command_line", "end_processes"]

_MARK = "_ACCLIMATE_PROGRAM"  # inherited by children, so that none is left when their parent was killed
_POLL_S = 0.1


@dataclass(frozen=True)
class Program:
    """A program by the folder of its record and log, and its name."""

    folder: Path
    name: str

    @property
    def log(self) -> Path:
        """The file with its output; that of the run before is beside it."""
        return self.folder / f"{self.name}.log"

    def start(self, command: Sequence[str], variables: Mapping[str, str], facts: Mapping[str, Any]) -> int:
        """Start it detached and return its process id.

        Args:
            command: Program and arguments.
            variables: Set in its environment, over this process's own.
            facts: Kept for `facts`.

        Raises:
            StackError: it cannot be run.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".log.1"))
        try:
            with self.log.open("ab") as output:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=dict(os.environ) | dict(variables) | {_MARK: self._mark},
                    start_new_session=True,
                )
        except OSError as error:
            raise StackError(f"{self.name}: {command[0]} cannot be run: {error.strerror}") from error
        if sys.platform == "linux":
            # For a moment after it has started its environment, which carries our mark, reads as empty.
            while process.poll() is None and not _environment(process.pid):
                time.sleep(0.001)
        process.returncode = 0  # ours no longer: do not warn that it still runs when this object goes
        record = {"pid": process.pid, "command": list(command), "facts": dict(facts)}
        temporary = self._record.with_suffix(".json.new")
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        temporary.replace(self._record)
        return process.pid

    def pids(self) -> tuple[int, ...]:
        """Return the ids of its processes, the one that was started first; none where it does not run.

        Raises:
            StackError: the record cannot be read.
        """
        record = self._read()
        if record is None:
            return ()
        pid = int(record["pid"])
        if sys.platform != "linux":  # the environment of a process is shown to nobody there: no children
            return (pid,) if command_line(pid) == " ".join(record["command"]) else ()
        found = [
            int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal() and self._is_ours(entry)
        ]
        return tuple(sorted(found, key=lambda each: (each != pid, each)))

    def facts(self) -> Mapping[str, Any]:
        """Return what was recorded at its start; nothing where it was never started, or was stopped."""
        record = self._read()
        return {} if record is None else dict(record["facts"])

    def is_running(self) -> bool:
        """Tell whether the process that was started runs; its children may without it."""
        record = self._read()
        return record is not None and int(record["pid"]) in self.pids()

    def stop(self, limit_s: float = 20.0) -> bool:
        """End it by SIGTERM, and by SIGKILL after the limit; return whether it ran.

        Raises:
            StackError: a process did not even end by SIGKILL.
        """
        before = self.pids()
        left = end_processes(before[:1], lambda pid: pid in self.pids(), limit_s)  # it sees to its children itself
        left += end_processes(self.pids(), lambda pid: pid in self.pids(), 0)
        if left:
            raise StackError(f"{self.name}: processes {sorted(set(left))} did not end; see {self.log}")
        self._record.unlink(missing_ok=True)
        return bool(before)

    def wait(self, is_ready: Callable[[], bool], limit_s: float, advice: Sequence[tuple[str, str]]) -> None:
        """Return once it is ready; where it does not get there, end it and quote its log.

        Args:
            is_ready: Asked again and again.
            limit_s: How long.
            advice: What the log contains, and what to do then; the first that fits.

        Raises:
            StackError: it ended, or the time is over.
        """
        deadline = time.monotonic() + limit_s
        while not is_ready():
            if not self.is_running():
                what = "ended before it served"
            elif time.monotonic() > deadline:
                what = f"did not serve within {limit_s:.0f} s"
            else:
                time.sleep(_POLL_S)
                continue
            self.stop()
            text = self.log.read_text(encoding="utf-8", errors="replace")
            tail = "\n".join(f"    {line}" for line in text.splitlines()[-15:]) or "    (nothing)"
            todo = next((f"\n  What to do: {todo}" for pattern, todo in advice if pattern in text), "")
            raise StackError(f"{self.name} {what}.\n  Last lines of {self.log}:\n{tail}{todo}")

    @property
    def _record(self) -> Path:
        return self.folder / f"{self.name}.json"

    @property
    def _mark(self) -> str:
        return str(self._record.resolve())

    def _is_ours(self, entry: Path) -> bool:
        try:
            return os.fsencode(f"{_MARK}={self._mark}") in _environment(int(entry.name)).split(b"\0")
        except OSError:  # gone, or another user's
            return False

    def _read(self) -> dict[str, Any] | None:
        try:
            record = json.loads(self._record.read_text(encoding="utf-8"))
            return {"pid": int(record["pid"]), "command": list(record["command"]), "facts": dict(record["facts"])}
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise StackError(
                f"{self._record} cannot be read ({type(error).__name__}: {error}): stop {self.name} by hand and delete "
                "this file"
            ) from error


def _environment(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def end_processes(pids: Sequence[int], is_ours: Callable[[int], bool], limit_s: float) -> list[int]:
    """End processes by SIGTERM, and by SIGKILL after the limit; return those that run all the same.

    Args:
        pids: Which.
        is_ours: Asked before each signal.
        limit_s: How long each has after SIGTERM; with 0 there is none.
    """
    running = [pid for pid in pids if is_ours(pid)]
    for number, wait_s in ((signal.SIGTERM, limit_s), (signal.SIGKILL, 10.0)):
        if wait_s <= 0:
            continue
        for pid in running:
            try:
                os.kill(pid, number)
            except ProcessLookupError:  # ended this moment
                continue
        deadline = time.monotonic() + wait_s
        while running and time.monotonic() < deadline:
            running = [pid for pid in running if is_ours(pid)]
            if running:
                time.sleep(_POLL_S)
    return running


def command_line(pid: int) -> str:
    """Return a process's arguments, with a space between them; nothing for one that has ended, a zombie included."""
    if sys.platform == "linux":
        try:
            raw = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return ""
        return os.fsdecode(raw.rstrip(b"\0").replace(b"\0", b" "))
    listed = subprocess.run(
        ["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return listed.stdout.strip()
