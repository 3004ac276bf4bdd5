"""Read partitions from where a consumer stands up to their present end."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaTimeoutError

__all__ = ["read_to_end"]

SILENCE_S = 30.0


def read_to_end(consumer: KafkaConsumer, partitions: Sequence[TopicPartition]) -> Iterator[Any]:
    """Yield the records of assigned partitions up to the ends they have now, one partition after the other.

    Raises:
        KafkaTimeoutError: The broker has sent nothing for 30 s though records are left.
    """
    ends = consumer.end_offsets(list(partitions))
    for tp in partitions:
        consumer.pause(*(other for other in partitions if other != tp))
        consumer.resume(tp)
        heard = time.monotonic()
        while consumer.position(tp) < ends[tp]:
            before = consumer.position(tp)
            for message in consumer.poll(timeout_ms=1000).get(tp, []):
                if message.offset < ends[tp]:
                    yield message
            if consumer.position(tp) != before:
                heard = time.monotonic()
            elif time.monotonic() - heard > SILENCE_S:
                raise KafkaTimeoutError(f"no record of {tp.topic}/{tp.partition} came for {SILENCE_S:.0f} s")
