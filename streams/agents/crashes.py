"""The compacted ``.status`` topic: what runs, and which offsets have crashed a worker.

Crashes are counted here and not in a file, because the next worker to meet the record may run elsewhere.
"""

from collections.abc import Mapping

from kafka import KafkaConsumer, TopicPartition

from acclimate.infra.settings import Settings
from acclimate.streams.agents.pipeline import Partition
from acclimate.streams.wire.connect import kafka_python_options
from acclimate.streams.wire.messages import CrashMark, WorkerStatus
from acclimate.streams.wire.reading import read_to_end
from acclimate.streams.wire.records import Outgoing
from acclimate.streams.wire.statuses import Crashed, parse_status
from acclimate.streams.wire.topics import topic_name

__all__ = ["crash_record", "read_crashes", "worker_record"]


def crash_record(fleet: str, agent: str, partition: Partition, mark: CrashMark | None) -> Outgoing:
    """Return the record that remembers a crash of an agent at one partition, or with None forgets it."""
    key = f"crash/{agent}/{partition[0]}/{partition[1]}".encode()
    return Outgoing(topic_name(fleet, "status"), key, mark.model_dump_json().encode() if mark else None, ())


def worker_record(fleet: str, worker: str, status: WorkerStatus | None) -> Outgoing:
    """Return the record that says what a worker runs, or with None that it has stopped."""
    value = None if status is None else status.model_dump_json().encode()
    return Outgoing(topic_name(fleet, "status"), f"worker/{worker}".encode(), value, ())


def read_crashes(settings: Settings, agent: str) -> Mapping[Partition, CrashMark]:
    """Read ``.status`` without a group up to its present end and return the crashes of an agent that it remembers."""
    consumer = KafkaConsumer(
        **kafka_python_options(settings), group_id=None, auto_offset_reset="earliest", enable_auto_commit=False
    )
    crashes: dict[Partition, CrashMark] = {}
    try:
        tp = TopicPartition(topic_name(settings.fleet, "status"), 0)
        consumer.assign([tp])
        consumer.seek_to_beginning(tp)
        for message in read_to_end(consumer, [tp]):
            said = parse_status(message.key, message.value)
            if not isinstance(said, Crashed) or said.agent != agent:
                continue
            if said.mark is None:
                crashes.pop((said.topic, said.partition), None)
            else:
                crashes[said.topic, said.partition] = said.mark
    finally:
        consumer.close()
    return crashes
