"""A fleet of its own for each test, and all that lies in its topic."""

import json
import secrets
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from acclimate.infra.settings import Settings
from acclimate.streams.wire.connect import kafka_python_options
from acclimate.streams.wire.topics import create_topics, topic_name

NOWHERE = "127.0.0.1:1"  # nothing listens there


def new_fleet(bootstrap: str, partitions: int = 3, **settings: Any) -> Settings:
    """Return settings of a fleet with fresh topics."""
    made = Settings(bootstrap=bootstrap, fleet=f"t{secrets.token_hex(6)}", **settings)
    create_topics(made, partitions=partitions, replication=1)
    return made


def elsewhere(settings: Settings, bootstrap: str = NOWHERE) -> Settings:
    """Return the same settings with another broker address; by default one where no broker is."""
    return settings.model_copy(update={"bootstrap": bootstrap})


def read_topic(settings: Settings, suffix: str = "features") -> list[Any]:
    """Return all records of a topic, partition after partition, each in order."""
    topic = topic_name(settings.fleet, suffix)
    consumer = KafkaConsumer(**kafka_python_options(settings), check_crcs=False, enable_auto_commit=False)
    try:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        consumer.seek_to_beginning(*partitions)
        found: list[Any] = []
        while any(consumer.position(partition) < ends[partition] for partition in partitions):
            for records in consumer.poll(timeout_ms=500).values():
                found += records
        return sorted(found, key=lambda record: (record.partition, record.offset))
    finally:
        consumer.close()


def first_arrivals(records: Iterable[Any]) -> dict[str, list[tuple[str, int]]]:
    """Return the (session, seq) of each device's windows in the order of their first arrival."""
    arrived: dict[str, dict[tuple[str, int], None]] = defaultdict(dict)
    for record in records:
        value = json.loads(record.value)
        for offset in range(len(value["event_times_ms"])):
            arrived[value["device"]].setdefault((value["session"], value["seq"] + offset))
    return {device: list(events) for device, events in arrived.items()}


def stored_values(path: Path) -> list[dict[str, Any]]:
    """Return the values that wait in a closed outbox."""
    import sqlite3

    connection = sqlite3.connect(path)
    try:
        return [json.loads(value) for (value,) in connection.execute("SELECT value FROM waiting ORDER BY row")]
    finally:
        connection.close()
