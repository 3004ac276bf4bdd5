"""Files of bundles in ``.artifacts``: parts under 900 kB, found by the offsets that a release names.

Key of a part is the SHA-256 of the whole file and the part's number. Compaction keeps offsets; where a record is gone
from its place all the same (the topic was made anew), the topic is searched by key.
"""

import time
from collections.abc import Mapping, Set
from types import TracebackType
from typing import Any, Self

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaTimeoutError

from acclimate.adaptation.errors import ContractError
from acclimate.infra.settings import Settings
from acclimate.registry.releases.release import Place
from acclimate.streams.wire.reading import SILENCE_S, committed_reader, read_to_end, read_topic
from acclimate.streams.wire.topics import topic_name

__all__ = ["PART_BYTES", "ArtifactReader", "publish_files", "remove_files"]

PART_BYTES = 900_000
_ACK_S = 60.0
_KEPT_BYTES = 4 * 2**20
_FETCH_BYTES = 16_384  # a larger record comes whole, and no megabyte behind it that nobody asked for


def publish_files(
    producer: KafkaProducer, fleet: str, files: Mapping[str, bytes], known: Mapping[str, Place]
) -> dict[str, Place]:
    """Send the files that have no place yet, one after the other, and return the place of every one.

    Args:
        producer: Idempotent, with ``acks="all"``.
        fleet: Prefix of the topics.
        files: Content by SHA-256 (hex).
        known: Places that earlier releases named.
    """
    topic = topic_name(fleet, "artifacts")
    places = {}
    for digest, content in sorted(files.items()):
        if digest in known:
            places[digest] = known[digest]
            continue
        parts = [content[start : start + PART_BYTES] for start in range(0, len(content), PART_BYTES)]
        sent = [
            producer.send(topic, key=f"{digest}/{number}".encode(), value=part) for number, part in enumerate(parts)
        ]
        offsets = tuple(int(future.get(timeout=_ACK_S).offset) for future in sent)
        places[digest] = Place(size_bytes=len(content), offsets=offsets)
    return places


def remove_files(producer: KafkaProducer, settings: Settings, keep: Set[str]) -> int:
    """Let compaction remove every part of a file that is not to be kept; return how many parts.

    Args:
        producer: As for `publish_files`.
        settings: Broker and fleet.
        keep: SHA-256 of files.

    Raises:
        KafkaError: The broker does not answer.
    """
    left: set[bytes] = set()
    for message in read_topic(settings, "artifacts"):
        (left.discard if message.value is None else left.add)(message.key or b"")
    gone = sorted(key for key in left if key.decode("utf-8", "replace").partition("/")[0] not in keep)
    topic = topic_name(settings.fleet, "artifacts")
    for future in [producer.send(topic, key=key, value=None) for key in gone]:
        future.get(timeout=_ACK_S)
    return len(gone)


class ArtifactReader:
    """Read files by their places. One thread, one reader; it connects when it is first asked."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._partition = TopicPartition(topic_name(settings.fleet, "artifacts"), 0)
        self._opened: KafkaConsumer | None = None
        self._kept: dict[int, Any] = {}

    def read(self, digest: str, place: Place) -> bytes:
        """Return a file; its digest is the caller's to check.

        Raises:
            ContractError: A part is nowhere in the topic, or the parts are not as large as the place says.
            KafkaTimeoutError: The broker is silent.
        """
        parts = []
        for number, offset in enumerate(place.offsets):
            key = f"{digest}/{number}".encode()
            part = self._at(offset, key)
            parts.append(self._search(key) if part is None else part)
        content = b"".join(parts)
        if len(content) != place.size_bytes:
            raise ContractError(f"artifact {digest[:12]}: expected {place.size_bytes} bytes, found {len(content)}")
        return content

    def close(self) -> None:
        """Disconnect."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None
        self._kept.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _at(self, offset: int, key: bytes) -> bytes | None:
        consumer, tp = self._consumer(), self._partition
        if offset not in self._kept:
            first, end = consumer.beginning_offsets([tp])[tp], consumer.end_offsets([tp])[tp]
            if not first <= offset < end:
                return None
            consumer.seek(tp, offset)
            self._read_past(offset)
        found = self._kept.pop(offset, None)
        return found.value if found is not None and found.key == key else None

    def _read_past(self, offset: int) -> None:
        """Keep what comes with the record at an offset: files of one release lie together, and are asked for soon."""
        consumer, tp = self._consumer(), self._partition
        if sum(len(record.value or b"") for record in self._kept.values()) > _KEPT_BYTES:
            self._kept.clear()
        heard = time.monotonic()
        while consumer.position(tp) <= offset:
            for record in consumer.poll(timeout_ms=1000).get(tp, []):
                self._kept[record.offset] = record
            if time.monotonic() - heard > SILENCE_S:
                raise KafkaTimeoutError(f"no record of {tp.topic}/{tp.partition} came for {SILENCE_S:.0f} s")

    def _search(self, key: bytes) -> bytes:
        consumer, tp = self._consumer(), self._partition
        consumer.seek_to_beginning(tp)
        found = None
        for message in read_to_end(consumer, [tp]):
            if message.key == key and message.value is not None:
                found = message.value
        if found is None:
            raise ContractError(f"artifact {key.decode()[:12]}: a part is missing in {tp.topic}; promote it again")
        return bytes(found)

    def _consumer(self) -> KafkaConsumer:
        if self._opened is None:
            self._opened = committed_reader(self._settings, max_partition_fetch_bytes=_FETCH_BYTES)
            self._opened.assign([self._partition])
        return self._opened
