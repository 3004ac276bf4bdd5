"""Ask a device that answers itself for windows that it keeps: topic ``.requests``.

A device reads the one partition where records with its key lie, without a group, from where it stopped.
"""

import logging
from typing import NamedTuple

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.partitioner import murmur2
from pydantic import ValidationError

from acclimate.adaptation.errors import DataError
from acclimate.infra.settings import Settings
from acclimate.streams.device.outbox_producer import reach_broker
from acclimate.streams.wire.connect import kafka_python_options
from acclimate.streams.wire.messages import WindowRequest
from acclimate.streams.wire.reading import committed_reader
from acclimate.streams.wire.topics import topic_name

__all__ = ["RequestPlace", "RequestReader", "partition_of", "request_windows"]

_ACK_S = 30.0
_POLL_MS = 200
_IDLE_MS = 5_000  # an idle device asks the broker so often; what comes is delivered at once all the same

log = logging.getLogger(__name__)


class RequestPlace(NamedTuple):
    """Where a device will read on."""

    partition: int
    offset: int


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition where Kafka's clients put a key.

    >>> partition_of(b"pump-7", 6)
    0
    """
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


def request_windows(settings: Settings, device: str, session: str, first: int, last: int) -> None:
    """Ask a device for the windows of a session from ``first`` to ``last``; they come in ``.windows``.

    The device sends them as its budget allows, and counts in its status those that it no longer has.

    Raises:
        DataError: There can be no such windows.
        KafkaError: The broker does not answer.
    """
    try:
        request = WindowRequest(schema_version=1, device=device, session=session, first=first, last=last)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        raise DataError(f"request of windows: {found['loc'][0]}: {found['msg']}", "request") from None
    if last < first:
        raise DataError(f"request of windows: expected first <= last, found {first} and {last}", "request")
    producer = KafkaProducer(**kafka_python_options(settings), acks="all", enable_idempotence=True)
    try:
        topic = topic_name(settings.fleet, "requests")
        producer.send(topic, key=device.encode(), value=request.model_dump_json().encode()).get(timeout=_ACK_S)
    finally:
        producer.close(timeout=_ACK_S)


class RequestReader:
    """Read what one device is asked for. Use it from one thread; it connects when it is first asked."""

    def __init__(self, settings: Settings, device: str) -> None:
        self._settings = settings
        self._key = device.encode()
        self._opened: tuple[KafkaConsumer, TopicPartition] | None = None

    def read(self, place: RequestPlace | None) -> tuple[list[WindowRequest], RequestPlace]:
        """Return the requests that have come, and where to read on; waits for them a moment.

        Args:
            place: Where to read on after a restart; None begins with what the topic still has.

        Raises:
            KafkaError: The broker does not answer.
            OSError: The same.
        """
        consumer, tp = self._consumer(place)
        found = []
        for message in consumer.poll(timeout_ms=_POLL_MS).get(tp, []):
            if message.key != self._key:
                continue  # of another device in this partition
            request = _parse(message.value)
            if request is not None and request.first <= request.last:
                found.append(request)
            else:
                log.warning("event=request_malformed partition=%d offset=%d", tp.partition, message.offset)
        return found, RequestPlace(tp.partition, consumer.position(tp))

    def close(self) -> None:
        """Disconnect; the next call connects anew."""
        if self._opened is not None:
            self._opened[0].close()
            self._opened = None

    def _consumer(self, place: RequestPlace | None) -> tuple[KafkaConsumer, TopicPartition]:
        if self._opened is None:
            reach_broker(self._settings.bootstrap.split(","))
            consumer = committed_reader(self._settings, fetch_max_wait_ms=_IDLE_MS)
            try:
                tp = self._assign(consumer, place)
            except BaseException:
                consumer.close()
                raise
            self._opened = consumer, tp
        return self._opened

    def _assign(self, consumer: KafkaConsumer, place: RequestPlace | None) -> TopicPartition:
        topic = topic_name(self._settings.fleet, "requests")
        partitions = consumer.partitions_for_topic(topic)
        if not partitions:
            raise OSError(f"topic {topic} does not exist")
        tp = TopicPartition(topic, partition_of(self._key, len(partitions)))
        consumer.assign([tp])
        first, end = consumer.beginning_offsets([tp])[tp], consumer.end_offsets([tp])[tp]
        known = place is not None and place.partition == tp.partition and first <= place.offset <= end
        consumer.seek(tp, place.offset if known and place is not None else first)
        return tp


def _parse(value: bytes | None) -> WindowRequest | None:
    try:
        return WindowRequest.model_validate_json(value or b"")
    except ValidationError:
        return None
