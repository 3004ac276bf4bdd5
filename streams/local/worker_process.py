"""A worker as a child process that never outlives its parent, for the demo and tests.

Started through :mod:`acclimate.infra.guard`, which ends it when the parent closes the pipe, ends, or is killed.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from acclimate.infra import guard
from acclimate.infra.errors import BrokerError
from acclimate.infra.settings import PREFIX, Settings

__all__ = ["WorkerProcess", "running_worker"]

_STOP_LIMIT_S = 12.0  # a worker ends within 10 s of SIGTERM
_LOG_TAIL_BYTES = 2_000


@dataclass(frozen=True)
class WorkerProcess:
    """A running worker; ``log`` gets its standard output and error."""

    pid: int
    log: Path
    guard: "subprocess.Popen[bytes]"

    def check(self) -> None:
        """Raise if the worker has ended.

        Raises:
            BrokerError: It has; the text ends with its last lines.
        """
        code = self.guard.poll()
        if code is not None:
            tail = self.log.read_bytes()[-_LOG_TAIL_BYTES:].decode("utf-8", "replace").strip()
            raise BrokerError(f"the worker ended with exit code {code}; the end of {self.log}:\n{tail}")


@contextmanager
def running_worker(settings: Settings, bundle: Path, log: Path) -> Iterator[WorkerProcess]:
    """Start one worker on ``bundle`` and stop it at the end; it may not be ready yet when the body begins.

    Args:
        settings: Broker, fleet and mode; whatever else the environment sets applies to the worker as well.
        bundle: Folder of the bundle.
        log: File that is written anew.
    """
    overrides = {"bootstrap": settings.bootstrap, "fleet": settings.fleet, "mode": settings.mode, "bundle": str(bundle)}
    environment = dict(os.environ) | {PREFIX + name.upper(): value for name, value in overrides.items()}
    # -P: nothing is imported from the folder that we happen to be in
    command = (sys.executable, "-P", "-m", "acclimate.streams.cli", "worker")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [*(sys.executable, "-I", "-S", guard.__file__, str(_STOP_LIMIT_S), str(log)), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the parent only, which then stops the worker
        )
    if process.stdin is None or process.stdout is None:
        raise BrokerError("the guard process has no pipes")
    try:
        with process.stdout as output:
            line = output.readline()
        if not line.startswith(b"pid "):
            raise BrokerError(f"the worker could not be started (exit code {process.wait()}); see {log}")
        yield WorkerProcess(int(line.split()[1]), log, process)
    finally:
        process.stdin.close()
        try:
            process.wait(_STOP_LIMIT_S + 5)
        except subprocess.TimeoutExpired:
            process.kill()  # the kernel ends the worker with it
            process.wait()
