"""A ledger outside the system: what was published, what came back, and the verdict on the difference."""

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from acclimate.streams.wire.codec import FeatureBatch, encode_features
from acclimate.streams.wire.messages import event_id
from tests.support.answers import by_window

ROOT = Path(__file__).parents[2]
SESSION = "00ff00ff00ff00ff"


def feature_record(device: str, seq: int, windows: np.ndarray, session: str = SESSION) -> bytes:
    times = tuple(1_700_000_000_000 + 1000 * (seq + i) for i in range(len(windows)))
    return encode_features(FeatureBatch(device, session, seq, times, windows))


@dataclass
class Ledger:
    """Publishes and remembers what the broker has acknowledged."""

    bootstrap: str
    fleet: str
    published: list[tuple[str, int, int]] = field(default_factory=list)  # device, first seq, windows

    def __post_init__(self) -> None:
        self.producer = KafkaProducer(bootstrap_servers=self.bootstrap, linger_ms=2)
        self.next_seq: dict[str, int] = defaultdict(int)

    def publish(self, device: str, windows: np.ndarray) -> None:
        seq = self.next_seq[device]
        self.next_seq[device] = seq + len(windows)
        value = feature_record(device, seq, windows)
        sent = self.producer.send(f"{self.fleet}.features", key=device.encode(), value=value)
        sent.add_callback(lambda _: self.published.append((device, seq, len(windows))))

    def raw(self, key: bytes | None, value: bytes | None, partition: int | None = None) -> None:
        self.producer.send(f"{self.fleet}.features", key=key, value=value, partition=partition).get(timeout=30)

    def flush(self) -> None:
        self.producer.flush()

    def close(self) -> None:
        self.producer.close()

    def events(self) -> set[str]:
        return {event_id(device, SESSION, seq + i) for device, seq, n in self.published for i in range(n)}


@dataclass(frozen=True)
class Verdict:
    lost: set[str]
    unknown: set[str]
    duplicates: int
    different: int  # one output id with two values
    out_of_order: list[str]
    entries: Mapping[str, bytes]  # canonical bytes of the first entry of each event


def read_topic(bootstrap: str, topic: str) -> list[object]:
    """Read a topic from its start to its present end."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
    try:
        partitions = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        records: list[object] = []
        while any(consumer.position(tp) < ends[tp] for tp in partitions):
            for batch in consumer.poll(timeout_ms=500).values():
                records += batch
        return records
    finally:
        consumer.close()


def verify(bootstrap: str, fleet: str, expected: set[str]) -> Verdict:
    """Compare the predictions topic with what was published."""
    values: dict[str, bytes] = {}
    entries: dict[str, bytes] = {}
    order: dict[str, list[int]] = defaultdict(list)
    duplicates = different = 0
    for record in read_topic(bootstrap, f"{fleet}.predictions"):
        message = json.loads(record.value)
        known = values.setdefault(message["output_id"], record.value)
        different += known != record.value
        for name, entry in by_window(message).items():
            if name in entries:
                duplicates += 1
            else:
                entries[name] = json.dumps(entry, sort_keys=True).encode()
                order[message["device"]].append(int(name.rpartition("/")[2]))
    return Verdict(
        lost=expected - entries.keys(),
        unknown=entries.keys() - expected,
        duplicates=duplicates,
        different=different,
        out_of_order=[device for device, seqs in order.items() if seqs != sorted(seqs)],
        entries=entries,
    )


def wait_for(condition, limit_s: float = 60.0, what: str = "the condition") -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {limit_s} s")
        time.sleep(0.1)


class Worker:
    """A worker process; ``fault`` as in :mod:`tests.support.faulty_worker`."""

    def __init__(
        self, bootstrap: str, fleet: str, bundle: Path | None, log: Path, fault: str = "none:", **settings: object
    ) -> None:
        values = {"session_timeout_s": 3, "watchdog_s": 30, "ready_file": log.with_suffix(".ready")} | settings
        environment = {f"ACCLIMATE_{name.upper()}": str(value) for name, value in values.items()}
        self.log = log
        self._file = log.open("ab")
        arguments = ["worker", "--bootstrap", bootstrap, "--fleet", fleet]
        arguments += ["--bundle", str(bundle)] if bundle is not None else []
        self.process = subprocess.Popen(
            [sys.executable, "-W", "default", "-m", "tests.support.faulty_worker", fault, *arguments],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
            stdout=self._file,
            stderr=self._file,
        )

    def wait_ready(self, limit_s: float = 60.0) -> "Worker":
        def ready() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"worker ended with {self.process.returncode}:\n{self.log.read_text()[-3000:]}")
            return "event=ready" in self.log.read_text()

        wait_for(ready, limit_s, "worker ready")
        return self

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._file.close()

    def terminate(self, limit_s: float = 15.0) -> int:
        self.process.terminate()
        try:
            return self.process.wait(limit_s)
        finally:
            self.kill()


def stop_all(workers: Iterable[Worker]) -> None:
    for worker in workers:
        worker.kill()


def answered(bootstrap: str, fleet: str) -> int:
    """Return the number of records in the output topics, cheap enough to poll."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    try:
        topics: Sequence[str] = (f"{fleet}.predictions", f"{fleet}.dlq")
        partitions = [TopicPartition(t, p) for t in topics for p in consumer.partitions_for_topic(t) or ()]
        return sum(consumer.end_offsets(partitions).values())
    finally:
        consumer.close()
