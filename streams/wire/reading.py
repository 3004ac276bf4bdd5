"""Read partitions from where a consumer stands up to their present end."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaTimeoutError

from acclimate.infra.settings import Settings
from acclimate.streams.wire.connect import kafka_python_options
from acclimate.streams.wire.topics import topic_name

__all__ = ["committed_reader", "partitions_of", "read_to_end", "read_topic", "seek_to_time"]

SILENCE_S = 30.0


def committed_reader(settings: Settings, **options: Any) -> KafkaConsumer:
    """Return a consumer without a group that sees what transactions have committed; assign it, and close it.

    Raises:
        KafkaError: The broker does not answer.
    """
    clients: list[Any] = []

    def client(**configs: Any) -> Any:
        clients.append(KafkaConsumer.DEFAULT_CONFIG["kafka_client"](**configs))
        return clients[0]

    try:
        return KafkaConsumer(
            **kafka_python_options(settings),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            kafka_client=client,
            **options,
        )
    except BaseException:
        for made in clients:
            made.close()  # a constructor that fails leaves its sockets open, and a receiver tries for days
        raise


def read_to_end(
    consumer: KafkaConsumer, partitions: Sequence[TopicPartition], stops: Mapping[TopicPartition, int] | None = None
) -> Iterator[Any]:
    """Yield the records of assigned partitions up to the ends they have now, one partition after the other.

    Args:
        consumer: Stands where reading begins.
        partitions: In this order.
        stops: Offsets to stop before, instead of the ends.

    Raises:
        KafkaTimeoutError: The broker has sent nothing for 30 s though records are left.
    """
    ends = consumer.end_offsets(list(partitions)) if stops is None else stops
    for tp in partitions:
        consumer.pause(*(other for other in partitions if other != tp))
        consumer.resume(tp)
        heard = time.monotonic()
        while consumer.position(tp) < ends[tp]:
            before = consumer.position(tp)
            for message in consumer.poll(timeout_ms=1000).get(tp, []):
                if message.offset >= ends[tp]:
                    consumer.seek(tp, message.offset)  # newer than the end: left to whoever reads on
                    break
                yield message
            if consumer.position(tp) != before:
                heard = time.monotonic()
            elif time.monotonic() - heard > SILENCE_S:
                raise KafkaTimeoutError(f"no record of {tp.topic}/{tp.partition} came for {SILENCE_S:.0f} s")


def partitions_of(consumer: KafkaConsumer, settings: Settings, suffix: str) -> list[TopicPartition]:
    """Return the partitions of a topic; none where it does not exist."""
    topic = topic_name(settings.fleet, suffix)
    return [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]


def seek_to_time(consumer: KafkaConsumer, partitions: Sequence[TopicPartition], since_ms: int) -> None:
    """Let assigned partitions be read from the first record that the broker took at a time or later."""
    found = consumer.offsets_for_times(dict.fromkeys(partitions, since_ms))
    ends = consumer.end_offsets(list(partitions))
    for tp in partitions:
        known = found.get(tp)
        consumer.seek(tp, ends[tp] if known is None else known.offset)


def read_topic(settings: Settings, suffix: str, since_ms: int | None = None) -> Iterator[Any]:
    """Yield the records of all partitions of a topic up to its present end, without a group.

    Args:
        settings: Broker and fleet.
        suffix: The topic's name without the fleet's.
        since_ms: Leave out what the broker took before; milliseconds since 1970.

    Raises:
        KafkaError: The broker does not answer.
    """
    consumer = committed_reader(settings)
    try:
        places = partitions_of(consumer, settings, suffix)
        consumer.assign(places)
        if since_ms is None:
            consumer.seek_to_beginning(*places)
        else:
            seek_to_time(consumer, places, since_ms)
        yield from read_to_end(consumer, places)
    finally:
        consumer.close()
