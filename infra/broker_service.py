"""A local Kafka that outlives the command that started it: start, stop and status by a data folder.

What runs is recorded in `service.json` in the data folder. A recorded process id is believed only if that process's
command line names this folder's `server.properties`: ids are reused, and nobody else's process may be signalled.
"""

import json
import os
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from acclimate.infra.background import command_line, end_processes
from acclimate.infra.errors import BrokerError
from acclimate.infra.kafka_cluster import Cluster, ClusterOptions, java_environment, lock_folder, prepare
from acclimate.infra.kafka_jars import KAFKA_VERSION, Notify
from acclimate.infra.kafka_probe import serving_brokers
from acclimate.infra.kafka_properties import NodePorts
from acclimate.infra.kafka_ready import wait_until_serving
from acclimate.infra.ports import HOST

__all__ = ["NodeStatus", "ServiceStatus", "read_status", "start_service", "stop_service"]

_RECORD = "service.json"


@dataclass(frozen=True)
class NodeStatus:
    """One node: where it should be, and whether it is."""

    node_id: int
    pid: int
    port: int
    running: bool
    serving: bool
    log: str


@dataclass(frozen=True)
class ServiceStatus:
    """What runs from a data folder."""

    running: bool  # at least one node
    bootstrap: str | None
    data_dir: str
    kafka_version: str
    nodes: tuple[NodeStatus, ...]


def start_service(
    folder: Path, options: ClusterOptions, fresh: bool = False, limit_s: float = 60.0, notify: Notify | None = None
) -> tuple[ServiceStatus, bool]:
    """Start a detached broker; return what runs and whether this call started it.

    Raises:
        SettingsError: an option is out of range.
        BrokerError: it cannot be started, or another one than asked for runs from this folder.
    """
    options.check()
    status = read_status(folder)
    if status.running:
        _check_same(status, options, fresh)
        return status, False
    lock = lock_folder(folder)
    try:
        cluster = prepare(folder, options, fresh, notify)
        nodes = {node_id: _launch(cluster, node_id, lock) for node_id in cluster.ports}
        try:
            _write_record(cluster, {node_id: process.pid for node_id, process in nodes.items()})
            wait_until_serving(cluster, lambda node_id: nodes[node_id].poll(), limit_s)
        except BaseException:
            for process in nodes.values():
                process.kill()
                process.wait()
            (folder / _RECORD).unlink(missing_ok=True)
            raise
    finally:
        os.close(lock)  # the nodes inherited it and go on holding it
    for process in nodes.values():
        process.returncode = 0  # ours no longer: do not warn that it still runs when this object goes
    return read_status(folder), True


def stop_service(folder: Path, limit_s: float = 20.0) -> ServiceStatus:
    """Stop the broker of a data folder: SIGTERM, and SIGKILL after the limit; return what ran before.

    Raises:
        BrokerError: a process did not even end by SIGKILL.
    """
    status = read_status(folder)
    properties = {node.pid: _properties(folder, node.node_id) for node in status.nodes if node.running}
    left = end_processes(list(properties), lambda pid: _is_node(pid, properties[pid]), limit_s)
    if left:
        raise BrokerError(f"processes {sorted(left)} did not end within {limit_s + 10:.0f} s")
    (folder / _RECORD).unlink(missing_ok=True)
    return status


def read_status(folder: Path) -> ServiceStatus:
    """Say what runs from a data folder, from its record and the processes themselves.

    Raises:
        BrokerError: the record cannot be read.
    """
    path = folder / _RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        kept = {int(n): (int(node["pid"]), NodePorts(**node["ports"])) for n, node in record["nodes"].items()}
        bootstrap, version = str(record["bootstrap"]), str(record["kafka_version"])
    except FileNotFoundError:
        return ServiceStatus(False, None, str(folder), KAFKA_VERSION, ())
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise BrokerError(
            f"{path} cannot be read ({type(e).__name__}: {e}): stop the broker's process by hand and delete this file"
        ) from e
    nodes = []
    for node_id, (pid, ports) in kept.items():
        running = _is_node(pid, _properties(folder, node_id))
        serving = running and node_id in serving_brokers(HOST, ports.internal)
        log = str(folder / f"node-{node_id}" / "kafka.log")
        nodes.append(NodeStatus(node_id, pid, ports.client, running, serving, log))
    running = any(node.running for node in nodes)
    return ServiceStatus(running, bootstrap if running else None, str(folder), version, tuple(nodes))


def _check_same(status: ServiceStatus, options: ClusterOptions, fresh: bool) -> None:
    differences = [
        text
        for text, differs in (
            ("--fresh was asked for", fresh),
            (f"{options.nodes} nodes were asked for", options.nodes != len(status.nodes)),
            (f"port {options.port} was asked for", options.port not in (0, status.nodes[0].port)),
            ("not all of its nodes run", not all(node.running for node in status.nodes)),
        )
        if differs
    ]
    if differences:
        raise BrokerError(
            f"a broker is already running in {status.data_dir} at {status.bootstrap}, but {' and '.join(differences)}: "
            "stop it first (acclimate broker stop), or use another data folder"
        )


def _launch(cluster: Cluster, node_id: int, lock: int) -> "subprocess.Popen[bytes]":
    with cluster.log(node_id).open("ab") as output:
        return subprocess.Popen(
            cluster.commands[node_id],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=java_environment(),
            cwd=cluster.folder,
            pass_fds=(lock,),
            start_new_session=True,
        )


def _write_record(cluster: Cluster, pids: dict[int, int]) -> None:
    nodes = {node_id: {"pid": pids[node_id], "ports": asdict(ports)} for node_id, ports in cluster.ports.items()}
    record = {"kafka_version": KAFKA_VERSION, "bootstrap": cluster.bootstrap, "nodes": nodes}
    temporary = cluster.folder / f"{_RECORD}.new"
    temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    temporary.replace(cluster.folder / _RECORD)


def _properties(folder: Path, node_id: int) -> str:
    return str(folder.resolve() / f"node-{node_id}" / "server.properties")


def _is_node(pid: int, properties: str) -> bool:
    """Tell whether a process is the Kafka node with these properties; a zombie is not."""
    return command_line(pid).endswith(f"kafka.Kafka {properties}")
