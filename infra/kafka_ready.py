"""The wait until Kafka nodes serve, and what a node that does not has to say for itself."""

import time
from collections.abc import Callable

from acclimate.infra.errors import BrokerError
from acclimate.infra.kafka_cluster import Cluster
from acclimate.infra.kafka_probe import serving_brokers
from acclimate.infra.ports import HOST

__all__ = ["wait_until_serving"]

_POLL_S = 0.1
# What a log contains, and what to do then; the first that fits.
_ADVICE = (
    ("Address already in use", "another program took one of its ports: choose another --port, or 0 for free ones"),
    ("Failed to acquire lock", "another broker still uses this data folder: stop it, or choose another --data-dir"),
    ("No space left on device", "free some disk space, or choose another --data-dir"),
    ("insufficient memory", "the machine has too little free memory for the heap: free some, or choose another --heap"),
    ("Could not reserve enough space", "the heap is larger than this machine's memory: choose another --heap"),
    ("OutOfMemoryError", "the heap is too small for what the broker holds: choose a larger --heap"),
    ("Invalid cluster.id", "the data folder belongs to another cluster: use --fresh to start with an empty one"),
    ("", "see the whole log; --fresh starts with an empty data folder"),
)


def wait_until_serving(
    cluster: Cluster, exit_code: Callable[[int], int | None], limit_s: float, nodes: frozenset[int] | None = None
) -> None:
    """Return once every node knows that every node serves.

    Args:
        cluster: with all its nodes started.
        exit_code: of a node by id, None while it runs.
        limit_s: how long to wait.
        nodes: who has to serve; default all.

    Raises:
        BrokerError: a node ended, or the time is over; quotes the log and says what to do.
    """
    everyone = frozenset(cluster.ports) if nodes is None else nodes
    deadline = time.monotonic() + limit_s
    waiting = set(everyone)
    while waiting:
        waiting = {n for n in waiting if serving_brokers(HOST, cluster.ports[n].internal) != everyone}
        for node_id in everyone:
            if (code := exit_code(node_id)) is not None:
                raise BrokerError(_failure(cluster, node_id, f"ended with exit code {code} before it served"))
        if waiting and time.monotonic() > deadline:
            raise BrokerError(_failure(cluster, min(waiting), f"did not serve within {limit_s:.0f} s"))
        if waiting:
            time.sleep(_POLL_S)


def _failure(cluster: Cluster, node_id: int, what: str) -> str:
    log = cluster.log(node_id)
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    tail = "\n".join(f"    {line}" for line in text.splitlines()[-15:]) or "    (nothing)"
    advice = next(advice for pattern, advice in _ADVICE if pattern in text)
    return f"Kafka node {node_id} {what}.\n  Last lines of {log}:\n{tail}\n  What to do: {advice}"
