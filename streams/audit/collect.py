"""Read what a fleet published and what the workers made of it, until every window of the ledger is accounted for.

Reads ``.features``, ``.predictions`` and ``.dlq`` without a consumer group, so that it disturbs nobody and can be
repeated; :mod:`acclimate.streams.audit.join` decides what the records mean.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from acclimate.adaptation.errors import ConfigError
from acclimate.infra.settings import Settings
from acclimate.streams.audit.join import Answer, Arrival, Event, Joined, Published, dead_windows, join, origins
from acclimate.streams.wire.connect import kafka_python_options
from acclimate.streams.wire.dead_letters import DeadLetter, parse_letter
from acclimate.streams.wire.records import header
from acclimate.streams.wire.topics import topic_name

__all__ = ["Progress", "Starts", "collect", "present_ends"]

Starts = Mapping[tuple[str, int], int]  # topic and partition to the first offset to read
Progress = Callable[[int, int], None]  # windows accounted for, windows in the ledger

_SUFFIXES = ("features", "predictions", "dlq")


def present_ends(settings: Settings) -> Starts:
    """Return where the topics end now: with it, a later `collect` reads only what came after."""
    consumer = _consumer(settings)
    try:
        return {
            (tp.topic, tp.partition): offset
            for tp, offset in consumer.end_offsets(_partitions(consumer, settings)).items()
        }
    finally:
        consumer.close()


def collect(
    settings: Settings,
    ledger: Sequence[Published],
    labels: Mapping[int, int],
    *,
    starts: Starts | None = None,
    idle_s: float = 30.0,
    progress: Progress | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> Joined:
    """Wait for the answers to everything in the ledger and join them with the truth.

    Args:
        settings: Broker and fleet.
        ledger: What was published.
        labels: True class of each row of the data.
        starts: Where to begin reading; partitions that are not named are read from their beginning.
        idle_s: Give up on missing answers when nothing new came for so many seconds; they count as lost then.
        progress: Called whenever something new was read.
        monotonic: Clock of ``idle_s``, in seconds.

    Raises:
        ConfigError: The fleet's topics do not exist.
        DataError: The ledger belongs to other data.
    """
    reading = _Reading(settings, ledger)
    consumer = _consumer(settings)
    try:
        partitions = _partitions(consumer, settings)
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        for tp in partitions:
            if starts is not None and (tp.topic, tp.partition) in starts:
                consumer.seek(tp, starts[tp.topic, tp.partition])
        present = consumer.end_offsets(partitions)
        seen_at = monotonic()
        while reading.missing and monotonic() - seen_at < idle_s:
            before = reading.missing
            taken = reading.take(consumer.poll(timeout_ms=500))
            # The traffic of others is no answer, except while the past is still being read.
            behind = taken and any(consumer.position(tp) < present[tp] for tp in partitions)
            if reading.missing < before or behind:
                seen_at = monotonic()
            if progress is not None:
                progress(reading.windows - reading.missing, reading.windows)
        # Repeats of answers that were already counted lie behind them.
        ends = consumer.end_offsets(partitions)
        seen_at = monotonic()
        while any(consumer.position(tp) < ends[tp] for tp in partitions) and monotonic() - seen_at < idle_s:
            if reading.take(consumer.poll(timeout_ms=500)):
                seen_at = monotonic()
    finally:
        consumer.close()
    return join(ledger, reading.arrivals, reading.answers, reading.letters, labels, reading.unreadable)


class _Reading:
    """What was read so far, and how many windows of the ledger are still unaccounted for."""

    def __init__(self, settings: Settings, ledger: Sequence[Published]) -> None:
        self._features, self._predictions, self._dlq = (topic_name(settings.fleet, s) for s in _SUFFIXES)
        self._origin = origins(ledger)
        self._waiting = set(self._origin)
        self.windows = len(self._waiting)
        self.arrivals: list[Arrival] = []
        self.answers: list[Answer] = []
        self.letters: list[DeadLetter] = []
        self.unreadable = 0

    @property
    def missing(self) -> int:
        return len(self._waiting)

    def take(self, polled: Mapping[TopicPartition, Sequence[Any]]) -> bool:
        """Take records; return whether there were any."""
        for tp, messages in polled.items():
            for message in messages:
                if tp.topic == self._features:
                    self._take_arrival(message)
                elif tp.topic == self._predictions:
                    self._take_answer(message)
                elif tp.topic == self._dlq:
                    self.letters.append(parse_letter(message))
        places = {tp.topic for tp in polled}
        if self._dlq in places or (self.letters and self._features in places):
            self._waiting -= dead_windows(self._origin, self.arrivals, self.letters)[0]
        return bool(polled)

    def _take_arrival(self, message: Any) -> None:
        first = _event(header(message.headers, "ce_id"))
        if first is not None:
            self.arrivals.append(Arrival(message.partition, message.offset, message.timestamp, first))

    def _take_answer(self, message: Any) -> None:
        answer = Answer.parse(message.partition, message.offset, message.timestamp, message.value or b"")
        if answer is None:
            self.unreadable += 1
            return
        self.answers.append(answer)
        device, session, seq = answer.first
        self._waiting.difference_update((device, session, seq + i) for i in range(len(answer.record.labels)))


def _event(identity: bytes | None) -> Event | None:
    """Read the event id in a header; None where a foreign producer wrote something else."""
    parts = (identity or b"").decode("utf-8", "replace").split("/")
    if len(parts) != 3 or not (parts[2].isascii() and parts[2].isdigit() and len(parts[2]) <= 16):
        return None
    return parts[0], parts[1], int(parts[2])


def _consumer(settings: Settings) -> KafkaConsumer:
    return KafkaConsumer(
        **kafka_python_options(settings),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_poll_records=2_000,
        max_partition_fetch_bytes=8 * 2**20,
        # The broker has checked them; where the crc32c package is missing, a second check costs 0.4 s per MB.
        check_crcs=False,
    )


def _partitions(consumer: KafkaConsumer, settings: Settings) -> list[TopicPartition]:
    found = []
    for suffix in _SUFFIXES:
        topic = topic_name(settings.fleet, suffix)
        partitions = consumer.partitions_for_topic(topic)
        if not partitions:
            raise ConfigError(
                f"{settings.bootstrap} has no topic {topic}; name the fleet with --fleet, or start a worker, "
                "which makes the topics"
            )
        found += [TopicPartition(topic, partition) for partition in sorted(partitions)]
    return found
