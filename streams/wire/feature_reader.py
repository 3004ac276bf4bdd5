"""Read recent traffic of a fleet from ``.features``, bounded in windows and bytes, without a group.

Whoever reads this way takes nothing from the workers: no offset is committed.
"""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from kafka import TopicPartition

from acclimate.adaptation.errors import DataError
from acclimate.infra.settings import Settings
from acclimate.streams.wire.codec import FeatureBatch, decode_features
from acclimate.streams.wire.reading import committed_reader, partitions_of, read_to_end

__all__ = ["FeatureReader", "PlacedBatch"]

_FIRST_STEP, _MOST_STEP = 16, 64  # records; each step back is twice as long as the one before, up to a limit
_MOST_RECORDS = 10_000  # of a partition: a topic full of noise is not searched to its beginning


@dataclass(frozen=True, eq=False)
class PlacedBatch:
    """A decoded record, where it lies, and when the broker took it (milliseconds since 1970)."""

    partition: int
    offset: int
    timestamp_ms: int
    batch: FeatureBatch


class FeatureReader:
    """Reads windows of one shape and rate; records that are no such windows are passed over and counted.

    Args:
        settings: Broker, fleet and the largest record that is read.
        channels, length: The shape of a window.
        sampling_rate_hz: The rate that the model takes; None takes any.

    Attributes:
        refused: Records that were passed over, by reason (`acclimate.adaptation.errors.DataError`).

    Raises:
        KafkaError: The broker does not answer.
    """

    def __init__(self, settings: Settings, channels: int, length: int, sampling_rate_hz: float | None = None) -> None:
        self.refused: Counter[str] = Counter()
        self._settings, self._shape, self._rate_hz = settings, (channels, length), sampling_rate_hz
        self._consumer = committed_reader(settings)
        self._partitions = partitions_of(self._consumer, settings, "features")

    def recent(self, windows: int, bytes_max: int) -> Iterator[PlacedBatch]:
        """Yield the newest records, each partition in its order, and so each device.

        Args:
            windows: Every partition may give an equal part of so many, so that no busy device fills them all; it
                gives up to a record more.
            bytes_max: Most bytes of values that are kept; a partition gives fewer windows where records are large.

        Raises:
            KafkaError: The broker does not answer.
        """
        if not self._partitions:
            return
        share = -(-windows // len(self._partitions))
        for tp in self._partitions:
            yield from self._newest(tp, share, bytes_max // len(self._partitions))

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _newest(self, tp: TopicPartition, windows: int, bytes_max: int) -> Iterator[PlacedBatch]:
        stop = self._consumer.end_offsets([tp])[tp]
        begin = max(self._consumer.beginning_offsets([tp])[tp], stop - _MOST_RECORDS)
        kept: deque[PlacedBatch] = deque()
        count = size = 0
        step = _FIRST_STEP
        while stop > begin and count < windows and size < bytes_max:
            start = max(begin, stop - step)
            for message in reversed(self._between(tp, start, stop)):  # newest first, until there are enough
                placed = self._decoded(message) if count < windows and size < bytes_max else None
                if placed is not None:
                    kept.appendleft(placed)
                    count += len(placed.batch.windows)
                    size += len(message.value)
            stop, step = start, min(2 * step, _MOST_STEP)
        yield from kept

    def _between(self, tp: TopicPartition, start: int, stop: int) -> list[Any]:
        self._consumer.assign([tp])
        self._consumer.seek(tp, start)
        return list(read_to_end(self._consumer, [tp], {tp: stop}))

    def _decoded(self, message: Any) -> PlacedBatch | None:
        channels, length = self._shape
        limit = self._settings.record_bytes_max
        try:
            batch = decode_features(
                message.key,
                message.value,
                channels=channels,
                length=length,
                bytes_max=limit,
                sampling_rate_hz=self._rate_hz,
            )
        except DataError as error:
            self.refused[error.reason] += 1
            return None
        return PlacedBatch(message.partition, message.offset, message.timestamp, batch)
