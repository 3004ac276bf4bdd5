"""Dead letters: the original key, bytes and headers of a refused record, and why it was refused.

The error headers are those of Kafka Connect, so that existing tools read them. Everything in a letter is a function of
the record and the reason: a repeat after a crash has the same id and the same bytes.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import MessageSizeTooLargeError
from kafka.structs import OffsetAndMetadata

from acclimate.infra.settings import Settings
from acclimate.streams.wire.connect import kafka_python_options
from acclimate.streams.wire.reading import read_to_end
from acclimate.streams.wire.records import Headers, Incoming, Outgoing, header
from acclimate.streams.wire.topics import topic_name

__all__ = [
    "ATTEMPT",
    "KEPT_BYTES_MAX",
    "DeadLetter",
    "Redriven",
    "Stage",
    "dead_letter",
    "parse_letter",
    "read_letters",
    "redrive",
]

Stage = Literal["decode", "adapt"]

KEPT_BYTES_MAX = 1_048_588  # the limit of .features; a larger value was unpacked from a compressed batch
TRUNCATED_BYTES = 65_536
ATTEMPT = "x-acclimate-attempt"
_CONNECT = "__connect.errors."
_OWN = "x-acclimate-"


def dead_letter(record: Incoming, topic: str, stage: Stage, reason: str, message: str, exception: str) -> Outgoing:
    """Return the dead letter of a record.

    Args:
        record: The refused record.
        topic: The dead letter topic.
        stage: Where it was refused.
        reason: Stable word, see :class:`acclimate.adaptation.errors.DataError`.
        message: What was expected and what came; at most 1,000 characters are kept.
        exception: Class name of the error.
    """
    key, value = record.key, record.value
    origin = f"{record.topic}/{record.partition}/{record.offset}"
    headers = _kept_headers(record.headers)
    errors = {
        _CONNECT + "topic": record.topic,
        _CONNECT + "partition": str(record.partition),
        _CONNECT + "offset": str(record.offset),
        _CONNECT + "stage": stage,
        _CONNECT + "exception.class.name": exception,
        _CONNECT + "exception.message": message[:1000],
        _OWN + "id": hashlib.sha256(origin.encode()).hexdigest(),
        _OWN + "reason": reason,
        _OWN + "first-seen-ms": str(record.timestamp_ms),
    }
    if len(headers) < len(record.headers):
        errors[_OWN + "headers-dropped"] = str(len(record.headers) - len(headers))
    if key is not None and len(key) > TRUNCATED_BYTES:
        errors[_OWN + "key-truncated-from-bytes"] = str(len(key))
        key = key[:TRUNCATED_BYTES]
    if value is None:
        errors[_OWN + "value"] = "null"
    elif len(value) > KEPT_BYTES_MAX:
        errors[_OWN + "truncated-from-bytes"] = str(len(value))
        errors[_OWN + "sha256"] = hashlib.sha256(value).hexdigest()
        value = value[:TRUNCATED_BYTES]
    headers += [(name, text.encode("utf-8", "backslashreplace")) for name, text in errors.items()]
    return Outgoing(topic, key, value, tuple(headers))


def _kept_headers(headers: Headers) -> list[tuple[str, bytes]]:
    """Return the original headers that fit, without error headers of an earlier letter; unpacked, they may be huge."""
    kept, room = [], TRUNCATED_BYTES
    for name, content in headers:
        room -= len(name) + len(content or b"")
        if room >= 0 and not name.startswith(_CONNECT) and (name == ATTEMPT or not name.startswith(_OWN)):
            kept.append((name, content))
    return kept


@dataclass(frozen=True)
class DeadLetter:
    """A letter as it lies in the topic; ``offset`` is its place there, ``origin_*`` that of the refused record."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    origin_topic: str
    origin_partition: int
    origin_offset: int
    stage: str
    reason: str
    message: str
    attempt: int
    timestamp_ms: int

    @property
    def truncated(self) -> bool:
        return any(name.startswith(_OWN) and name.endswith("truncated-from-bytes") for name, _ in self.headers)


@dataclass(frozen=True)
class Redriven:
    """What a re-drive did with the letters it had not seen before.

    ``parked`` ones have reached the cap. ``unsendable`` ones were truncated, come from elsewhere than ``.features`` or
    are larger than the broker takes.
    """

    sent: int
    parked: int
    unsendable: int


def read_letters(settings: Settings, group: str | None = None) -> Iterator[DeadLetter]:
    """Yield the dead letters up to the present end of the topic, partition by partition in order.

    Args:
        settings: Where the broker is.
        group: Consumer group whose committed offsets are the start; None starts at the oldest letter.
    """
    consumer = KafkaConsumer(
        **kafka_python_options(settings), group_id=group, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    try:
        topic = topic_name(settings.fleet, "dlq")
        partitions = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic) or ())]
        consumer.assign(partitions)
        for message in read_to_end(consumer, partitions):
            yield parse_letter(message)
    finally:
        consumer.close(autocommit=False)


def redrive(settings: Settings, attempts_max: int) -> Redriven:
    """Send refused records to their topic again, each letter once, until ``attempts_max`` tries were made.

    A record that fails again comes back as a new letter with its attempt number raised. Killed in the middle, the next
    run sends some records twice, which is harmless.
    """
    group = f"{settings.fleet}.dlq.redrive"
    features = topic_name(settings.fleet, "features")
    # Not idempotent: one refused record would fail every later send. Compressed: some of them came so.
    producer = KafkaProducer(
        **kafka_python_options(settings),
        enable_idempotence=False,
        compression_type="gzip",
        max_request_size=2 * KEPT_BYTES_MAX,
    )
    counts = Counter[str]()
    done: dict[TopicPartition, int] = {}
    try:
        for letter in read_letters(settings, group):
            if letter.truncated or letter.origin_topic != features:
                counts["unsendable"] += 1
            elif letter.attempt >= attempts_max:
                counts["parked"] += 1
            else:
                counts["sent" if _send_again(producer, letter) else "unsendable"] += 1
            done[TopicPartition(topic_name(settings.fleet, "dlq"), letter.partition)] = letter.offset + 1
    finally:
        producer.close()
        _commit(settings, group, done)
    return Redriven(counts["sent"], counts["parked"], counts["unsendable"])


def _send_again(producer: KafkaProducer, letter: DeadLetter) -> bool:
    headers = [(n, v) for n, v in letter.headers if not n.startswith((_CONNECT, _OWN))]
    headers.append((ATTEMPT, str(letter.attempt + 1).encode()))
    try:
        sent = producer.send(letter.origin_topic, key=letter.key, value=letter.value, headers=headers)
        sent.get(timeout=60)
    except MessageSizeTooLargeError:
        return False
    return True


def _commit(settings: Settings, group: str, offsets: dict[TopicPartition, int]) -> None:
    if not offsets:
        return
    consumer = KafkaConsumer(**kafka_python_options(settings), group_id=group, enable_auto_commit=False)
    try:
        consumer.assign(list(offsets))
        consumer.commit({tp: OffsetAndMetadata(offset, "", -1) for tp, offset in offsets.items()})
    finally:
        consumer.close(autocommit=False)


def parse_letter(message: Any) -> DeadLetter:
    """Return the letter in a record of kafka-python; a foreign record has empty fields, offset and partition -1."""
    headers = tuple(message.headers)

    def text(name: str, default: str = "") -> str:
        return (header(headers, name) or default.encode()).decode("utf-8", "replace")

    def number(name: str, default: int) -> int:
        digits = text(name)
        return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 19 else default

    return DeadLetter(
        partition=message.partition,
        offset=message.offset,
        key=message.key,
        value=message.value,
        headers=headers,
        origin_topic=text(_CONNECT + "topic"),
        origin_partition=number(_CONNECT + "partition", -1),
        origin_offset=number(_CONNECT + "offset", -1),
        stage=text(_CONNECT + "stage"),
        reason=text(_OWN + "reason"),
        message=text(_CONNECT + "exception.message"),
        attempt=number(ATTEMPT, 0),
        timestamp_ms=message.timestamp,
    )
