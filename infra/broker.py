"""Apache Kafka for tests and the demo: real, local, and gone when its owner is.

    with LocalKafka() as kafka:
        publish_to(kafka.bootstrap)

Each node runs under a guard process (`infra/guard.py`) that ends it when this process ends, however that happens.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from acclimate.infra.errors import BrokerError
from acclimate.infra.kafka_cluster import Cluster, ClusterOptions, java_environment, lock_folder, prepare
from acclimate.infra.kafka_jars import Notify
from acclimate.infra.kafka_properties import BrokerSecurity
from acclimate.infra.kafka_ready import wait_until_serving

__all__ = ["BrokerSecurity", "LocalKafka"]

_GUARD = Path(__file__).with_name("guard.py")
_ENDING = frozenset({signal.SIGTERM, signal.SIGKILL, signal.SIGINT})


@dataclass(frozen=True)
class _Node:
    guard: "subprocess.Popen[bytes]"
    pid: int


class LocalKafka:
    """One or three Kafka nodes on this machine, as a context manager.

    Args:
        nodes: 1 or 3; three have replication factor 3 and two in-sync replicas.
        data_dir: where records, logs and configuration go; an existing one is continued. None is a temporary folder,
            removed at the end.
        fresh: empty `data_dir` first (only ever one that a local broker made).
        port: client port of node 1, the next ones for further nodes; 0 takes free ports.
        heap: largest heap of each node, in the notation of `-Xmx`.
        log_level: trace, debug, info, warn or error.
        security: TLS, users and client certificates of the client listener; None is plain text.
        properties: broker properties that win over ours.
        start_limit_s: how long to wait for the first answer.
        stop_limit_s: how long a node may take to shut down before it is killed.
        notify: called with one line of text before jars are downloaded.

    Raises:
        SettingsError: an option is out of range.
        BrokerError: Kafka cannot be started; the text quotes its log and says what to do.
    """

    def __init__(
        self,
        nodes: int = 1,
        *,
        data_dir: Path | None = None,
        fresh: bool = False,
        port: int = 0,
        heap: str = "512m",
        log_level: str = "warn",
        security: BrokerSecurity | None = None,
        properties: Mapping[str, str] | None = None,
        start_limit_s: float = 60.0,
        stop_limit_s: float = 10.0,
        notify: Notify | None = None,
    ) -> None:
        self._options = ClusterOptions(nodes, port, heap, log_level, security, properties)
        self._options.check()
        self._wanted_folder = data_dir
        self._fresh = fresh
        self._start_limit_s = start_limit_s
        self._stop_limit_s = stop_limit_s
        self._notify = notify
        self._cluster: Cluster | None = None
        self._temporary: Path | None = None
        self._lock = -1
        self._nodes: dict[int, _Node] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def bootstrap(self) -> str:
        """Return the addresses of all nodes, stopped ones included: `127.0.0.1:PORT,...`."""
        return self._started().bootstrap

    @property
    def data_dir(self) -> Path:
        """Return the data folder."""
        return self._started().folder

    @property
    def node_pids(self) -> dict[int, int]:
        """Return the process id of each running node by its node id, the broker id of Kafka's metadata, from 1."""
        return {node_id: node.pid for node_id, node in self._nodes.items() if node.guard.poll() is None}

    def log(self, node_id: int) -> Path:
        """Return the log file of a node."""
        return self._started().log(node_id)

    def start(self) -> None:
        """Start all nodes and wait until they serve; a failure leaves nothing running."""
        if self._cluster is not None:
            raise BrokerError("this LocalKafka runs already")
        folder = self._wanted_folder
        if folder is None:
            folder = self._temporary = Path(tempfile.mkdtemp(prefix="acclimate-kafka-"))
        try:
            self._lock = lock_folder(folder)
            self._cluster = prepare(folder, self._options, self._fresh, self._notify)
            for node_id in self._cluster.ports:
                self._launch(node_id)
            wait_until_serving(self._cluster, self._exit_code, self._start_limit_s)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop all nodes and leave nothing behind but a given data folder.

        With a data folder to keep: SIGTERM, then SIGKILL after the limit. A temporary one is removed, so there is
        nothing to shut down for, and SIGKILL spares the 6 s that three nodes need to take leave of each other.
        """
        for node_id, node in self._nodes.items():
            if self._temporary is not None and node.guard.poll() is None:
                self.signal_node(node_id, signal.SIGKILL)
            _close(node.guard)
        for node_id in list(self._nodes):
            self._reap(node_id)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        if self._temporary is not None:
            shutil.rmtree(self._temporary)
            self._temporary = None
        self._cluster = None

    def signal_node(self, node_id: int, number: int) -> None:
        """Send a signal to one node and do not wait, e.g. SIGSTOP to freeze it and SIGCONT to let it go on."""
        node = self._running(node_id)
        if node.guard.stdin is None:
            raise BrokerError(f"node {node_id} is being stopped")
        with contextlib.suppress(BrokenPipeError):  # it ended this moment: nothing left to tell
            os.write(node.guard.stdin.fileno(), f"signal {int(number)}\n".encode())

    def stop_node(self, node_id: int, number: int = signal.SIGTERM) -> None:
        """End one node by SIGTERM, SIGINT or SIGKILL and wait until it is gone; the others go on."""
        if number not in _ENDING:
            raise BrokerError(f"signal {number} does not end a node; use signal_node")
        self.signal_node(node_id, number)
        node = self._running(node_id)
        try:
            node.guard.wait(self._stop_limit_s)
        except subprocess.TimeoutExpired:
            self.signal_node(node_id, signal.SIGKILL)
        self._reap(node_id)

    def start_node(self, node_id: int) -> None:
        """Start a stopped node again, with its data and ports, and wait until all running nodes know each other."""
        cluster = self._started()
        if node_id not in cluster.ports:
            raise BrokerError(f"there is no node {node_id}; the nodes are {sorted(cluster.ports)}")
        if node_id in self.node_pids:
            raise BrokerError(f"node {node_id} runs already, as process {self.node_pids[node_id]}")
        if node_id in self._nodes:
            self._reap(node_id)
        self._launch(node_id)
        wait_until_serving(cluster, self._exit_code, self._start_limit_s, frozenset(self.node_pids))

    def _started(self) -> Cluster:
        if self._cluster is None:
            raise BrokerError("this LocalKafka does not run: use it as a context manager, or call start() first")
        return self._cluster

    def _running(self, node_id: int) -> _Node:
        if node_id not in self.node_pids:
            raise BrokerError(f"node {node_id} does not run; running are {sorted(self.node_pids)}")
        return self._nodes[node_id]

    def _exit_code(self, node_id: int) -> int | None:
        return self._nodes[node_id].guard.poll()

    def _launch(self, node_id: int) -> None:
        cluster = self._started()
        log = cluster.log(node_id)
        with log.open("ab") as errors:
            guard = subprocess.Popen(
                # -I -S: nothing of this environment's start-up files; a guard costs 10 MB and 30 ms
                [
                    sys.executable,
                    "-I",
                    "-S",
                    str(_GUARD),
                    str(self._stop_limit_s),
                    str(log),
                    *cluster.commands[node_id],
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                env=java_environment(),
                pass_fds=(self._lock,),
                start_new_session=True,  # Ctrl-C reaches this process only, which then stops the nodes in order
            )
        if guard.stdin is None or guard.stdout is None:
            raise BrokerError("the guard process has no pipes")
        with guard.stdout as output:
            line = output.readline()
        if not line.startswith(b"pid "):
            guard.stdin.close()
            raise BrokerError(f"node {node_id} could not be run (exit code {guard.wait()}); see {log}")
        self._nodes[node_id] = _Node(guard, int(line.split()[1]))

    def _reap(self, node_id: int) -> None:
        guard = self._nodes[node_id].guard
        _close(guard)
        try:
            guard.wait(self._stop_limit_s + 10)
        except subprocess.TimeoutExpired:
            guard.kill()  # the kernel ends the node with it
            guard.wait()
        del self._nodes[node_id]


def _close(guard: "subprocess.Popen[bytes]") -> None:
    if guard.stdin is not None:
        guard.stdin.close()
