"""MLflow's own server on this machine, for its web page and for HTTP clients: start, stop and status by a folder.

The folder is the one that the catalogue uses without a server (`acclimate.registry.catalogue`): the same SQLite file,
and beside it the same `artifacts`. What was registered either way is there either way. It listens on 127.0.0.1 only.
"""

import http.client
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

from acclimate.infra.background import Program
from acclimate.infra.errors import StackError
from acclimate.infra.ports import HOST, free_port, is_free

__all__ = ["MLFLOW_PORT", "MlflowStatus", "read_mlflow", "start_mlflow", "stop_mlflow"]

MLFLOW_PORT = 5000
_NAME = "mlflow-server"
_ADVICE = (
    ("Address already in use", "another program took its port: choose another one, or 0 for a free one"),
    ("out-of-date database schema", "the store was made by another MLflow: `mlflow db upgrade` with its address"),
    ("No space left on device", "free some disk space"),
    ("", "see the whole log"),
)


@dataclass(frozen=True)
class MlflowStatus:
    """What runs from a folder: ``running`` is the process, ``serving`` that it answers."""

    running: bool
    serving: bool
    address: str | None
    pid: int | None
    log: str


def start_mlflow(folder: Path, port: int | None = None, limit_s: float = 120.0) -> tuple[MlflowStatus, bool]:
    """Start a detached server and wait until it serves; return what runs and whether this call started it.

    Args:
        folder: The store's folder, with `mlflow.db` and `artifacts`.
        port: To listen on, 0 for a free one; None for 5000, or where it listens already.
        limit_s: How long it may take; 20 s are usual on two cores.

    Raises:
        StackError: it cannot be started, or runs at another port than asked for.
    """
    status = read_mlflow(folder)
    if status.serving:
        if port and status.address != _address(port):
            raise StackError(f"MLflow's server runs at {status.address}, port {port} was asked for: stop it first")
        return status, False
    if importlib.util.find_spec("mlflow") is None:
        raise StackError("MLflow's server needs the extra `registry`: pip install 'acclimate[registry]'")
    program = Program(folder, _NAME)
    program.stop()  # what runs and does not serve, and what is left of one that was killed
    chosen = MLFLOW_PORT if port is None else port or free_port(set())
    if not is_free(chosen):
        raise StackError(
            f"port {chosen} on {HOST} is already in use: stop the program that listens there, choose another one for "
            "MLflow, or 0 for a free one"
        )
    folder.mkdir(parents=True, exist_ok=True)
    store = folder.resolve()
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(chosen), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{store / 'mlflow.db'}"]
    command += ["--serve-artifacts", "--artifacts-destination", (store / "artifacts").as_uri()]
    # Pages from elsewhere that a browser shows cannot speak to it: the host must be one of these.
    command += ["--allowed-hosts", f"{HOST}:{chosen},localhost:{chosen}"]
    # Job workers are of no use here, and cost a second each at every start.
    variables = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    program.start(command, variables, {"port": chosen})
    program.wait(lambda: _serves(chosen), limit_s, _ADVICE)
    return read_mlflow(folder), True


def stop_mlflow(folder: Path) -> MlflowStatus:
    """Stop the server of a folder and return what ran before; what it stored stays.

    Raises:
        StackError: a process did not end.
    """
    status = read_mlflow(folder)
    Program(folder, _NAME).stop()
    return status


def read_mlflow(folder: Path) -> MlflowStatus:
    """Say what runs from a folder.

    Raises:
        StackError: its record cannot be read.
    """
    program = Program(folder, _NAME)
    log = str(program.log.absolute())
    if not program.is_running():
        return MlflowStatus(False, False, None, None, log)
    port = int(program.facts()["port"])
    return MlflowStatus(True, _serves(port), _address(port), program.pids()[0], log)


def _address(port: int) -> str:
    return f"http://{HOST}:{port}"


def _serves(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
