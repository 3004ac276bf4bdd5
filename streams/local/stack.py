"""The whole stack on this machine: Kafka, MLflow's server, the fleet's keys, its topics and its controller.

Everything lies in one folder, runs in the background and is found again by it. A part that runs is left alone, a dead
one is started again.
"""

import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import portalocker
from portalocker import LockFlags

from acclimate.adaptation.errors import ConfigError
from acclimate.infra.background import Program
from acclimate.infra.broker_service import read_status, start_service, stop_service
from acclimate.infra.errors import StackError
from acclimate.infra.kafka_cluster import ClusterOptions
from acclimate.infra.mlflow_server import start_mlflow, stop_mlflow
from acclimate.infra.settings import PREFIX, Settings
from acclimate.registry.trust.envelope import public_hex
from acclimate.registry.trust.key_folder import TRUST_FILE, init_keys, read_trust_file
from acclimate.registry.trust.keys import read_key
from acclimate.registry.trust.trust import Trust
from acclimate.streams.wire.topics import create_topics

__all__ = ["CONTROLLER", "Stack", "start_stack", "stop_stack"]

KAFKA_PORT = 9092
CONTROLLER = (sys.executable, "-m", "acclimate.streams.cli", "controller")
ENV_FILE = "env"
_CONTROLLER_S = 60.0
_ONE_WAVE = """# Rules of this local stack; docs/releases.md and docs/gates.md have all of them, and the defaults.
[rollout]
waves = [1.0]
observe_s = 10.0
"""


@dataclass(frozen=True)
class Stack:
    """What runs.

    Attributes:
        bootstrap, mlflow: Addresses.
        approvals: How many approvers must sign a release; 0: a moved alias is enough.
        variables: For every other command.
        env_file: The same to `source`.
        logs: By part.
        started: Parts that this call has started.
    """

    bootstrap: str
    mlflow: str
    approvals: int
    variables: Mapping[str, str]
    env_file: Path
    logs: Mapping[str, Path]
    started: tuple[str, ...]


def start_stack(
    folder: Path,
    settings: Settings,
    kafka_port: int | None,
    mlflow_port: int | None,
    notify: Callable[[str], None],
    controller: Sequence[str] = CONTROLLER,
) -> Stack:
    """Start what does not run and return what runs.

    Args:
        folder: The folder of everything that the stack keeps.
        settings: The fleet, and the passphrase of its keys. Keys are taken from them where they name a trust.json and
            a release key; else they are made in the folder, and no release needs an approval.
        kafka_port, mlflow_port: 0 for a free one; None for the usual one, or where it runs already.
        notify: Told what is being done.
        controller: Its command.

    Raises:
        InfraError: A part cannot be started; the message names its log. The others stay.
        ConfigError: The keys are another fleet's.
    """
    folder = folder.resolve()
    with _alone(folder):
        trust, release_key, gate_key = _keys(folder / "keys", settings)
        approvals = _check_fleet(trust, settings).approvals
        started = []
        notify("Kafka ...")
        options = ClusterOptions(port=_kafka_port(folder / "broker", kafka_port))
        broker, new = start_service(folder / "broker", options, notify=notify)
        if broker.bootstrap is None:
            raise StackError(f"Kafka ended as soon as it had started; see {broker.nodes[0].log}")
        started += ["kafka"] if new else []
        notify("MLflow, about 20 s ...")
        mlflow, new = start_mlflow(folder / "mlflow", mlflow_port)
        if mlflow.address is None:
            raise StackError(f"MLflow's server ended as soon as it had started; see {mlflow.log}")
        started += ["mlflow"] if new else []
        used = settings.model_copy(update={"bootstrap": broker.bootstrap, "mlflow": mlflow.address})
        create_topics(used)
        values = {
            "bootstrap": used.bootstrap,
            "fleet": used.fleet,
            "mlflow": used.mlflow,
            "trust": str(trust),
            "release_key": str(release_key),
            "policy": str(_policy(folder, settings)),
        } | ({"gate_key": str(gate_key)} if gate_key else {})
        variables = {f"{PREFIX}{name.upper()}": value for name, value in values.items()}
        env_file = folder / ENV_FILE
        env_file.write_text("".join(f"export {n}={shlex.quote(v)}\n" for n, v in variables.items()), encoding="utf-8")
        notify("controller ...")
        program = Program(folder, "controller")
        started += ["controller"] if _start_controller(program, controller, variables) else []
    logs = {"kafka": Path(broker.nodes[0].log), "mlflow": Path(mlflow.log), "controller": program.log}
    return Stack(used.bootstrap, used.mlflow, approvals, variables, env_file, logs, tuple(started))


def stop_stack(folder: Path) -> tuple[str, ...]:
    """Stop all parts, wait until they have ended, and return those that ran; what they keep stays.

    Raises:
        InfraError: A process did not end.
    """
    folder = folder.resolve()
    if not folder.is_dir():
        return ()
    with _alone(folder):
        ran = {
            "controller": Program(folder, "controller").stop(),
            "mlflow": stop_mlflow(folder / "mlflow").running,
            "kafka": stop_service(folder / "broker").running,
        }
    return tuple(name for name, did in ran.items() if did)


def _start_controller(program: Program, command: Sequence[str], variables: Mapping[str, str]) -> bool:
    if program.is_running():
        if program.facts().get("variables") == dict(variables):
            return False
        program.stop()  # another address or key than it was started with
    ready = program.folder / "controller.ready"
    ready.unlink(missing_ok=True)
    given = {**variables, f"{PREFIX}READY_FILE": str(ready)}
    program.start(command, given, {"variables": dict(variables)})
    program.wait(ready.exists, _CONTROLLER_S, ())
    return True


def _policy(folder: Path, settings: Settings) -> Path:
    """Return the file of the rules; without one, a new file with one wave to all devices of this small fleet."""
    if settings.policy is not None:
        return settings.policy.absolute()
    path = folder / "policy.toml"
    if not path.exists():
        path.write_text(_ONE_WAVE, encoding="utf-8")
    return path


def _kafka_port(folder: Path, asked: int | None) -> int:
    if asked is not None:
        return asked
    return 0 if read_status(folder).running else KAFKA_PORT


def _keys(folder: Path, settings: Settings) -> tuple[Path, Path, Path | None]:
    """Return the files of the trust statement, the release key and the gate key."""
    if settings.trust is not None and settings.release_key is not None:
        gate = settings.gate_key.absolute() if settings.gate_key else None
        return settings.trust.absolute(), settings.release_key.absolute(), gate
    passphrase = settings.passphrase
    if not (folder / TRUST_FILE).exists():
        init_keys(folder, settings.fleet, (), 0, passphrase, time.time_ns() // 1_000_000)
    trust = read_trust_file(folder / TRUST_FILE)[1]
    newest = {
        role: [key.public_key for key in trust.keys if key.role == role and key.until_ms is None]
        for role in ("release", "gate")
    }
    files = {
        role: next((p for p in _files(folder, role) if public_hex(read_key(p, passphrase)) in newest[role]), None)
        for role in newest
    }
    if files["release"] is None:
        raise ConfigError(f"{folder}: expected the key that signs releases, found none that {TRUST_FILE} lists")
    return folder / TRUST_FILE, files["release"], files["gate"]


def _files(folder: Path, role: str) -> list[Path]:
    return sorted(folder.glob(f"{role}*.pem"))  # a rotation makes ROLE-VERSION.pem


def _check_fleet(path: Path, settings: Settings) -> Trust:
    trust = read_trust_file(path)[1]
    if trust.fleet != settings.fleet:
        raise ConfigError(
            f"{path} is of fleet {trust.fleet}, asked for is fleet {settings.fleet}: set {PREFIX}FLEET, or use another "
            "folder with --data-dir"
        )
    return trust


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one command at a time start and stop things."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "stack.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            portalocker.lock(descriptor, LockFlags.EXCLUSIVE | LockFlags.NON_BLOCKING)
        except portalocker.AlreadyLocked as error:
            raise StackError(
                f"another `acclimate up` or `down` is at work in {folder}: wait until it is done"
            ) from error
        yield
    finally:
        os.close(descriptor)
