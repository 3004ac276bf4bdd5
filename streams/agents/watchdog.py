"""Ends a process that has work and makes no progress.

Faust workers are known to stall silently. The watchdog looks from outside: in its own thread and over its own
connection it compares the group's committed offsets with the ends of the partitions, so it notices a frozen event loop
as well as a consumer that no longer fetches one of them. A broker that cannot be reached counts as no progress.
"""

import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable

from kafka import KafkaConsumer, TopicPartition

from acclimate.infra.settings import Settings
from acclimate.streams.agents.pipeline import Partition
from acclimate.streams.wire.connect import kafka_python_options

__all__ = ["EXIT_STALLED", "Watchdog"]

EXIT_STALLED = 75  # EX_TEMPFAIL: restart me

log = logging.getLogger(__name__)


class Watchdog:
    """Exit with 75 when a partition has had records to read, and no commit, for ``settings.watchdog_s``.

    Args:
        settings: Broker, time limit and the ready file, which is touched while all is well.
        group: Consumer group whose commits are the progress.
        topic: What the group reads.
        assigned: Returns the partitions of this worker. While there are none, any commit of the group is progress.
    """

    def __init__(self, settings: Settings, group: str, topic: str, assigned: Callable[[], Iterable[Partition]]) -> None:
        self._settings = settings
        self._group = group
        self._topic = topic
        self._assigned = assigned
        self._committed: dict[TopicPartition, int | None] = {}
        self._moved: dict[TopicPartition, float] = {}  # when each partition last was well
        self._alive = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        self._alive = time.monotonic()
        threading.Thread(target=self._guard, name="watchdog-guard", daemon=True).start()
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; returns at once, the thread closes its connection by itself."""
        self._stop.set()

    def touch(self) -> None:
        """Note progress that no commit shows, such as state that is being restored."""
        self._alive = time.monotonic()

    def _run(self) -> None:
        consumer: KafkaConsumer | None = None
        while not self._stop.wait(min(self._settings.watchdog_s / 6, 5.0)):
            try:
                if consumer is None:
                    consumer = KafkaConsumer(
                        **kafka_python_options(self._settings), group_id=self._group, enable_auto_commit=False
                    )
                well = self._look(consumer)
                if well > self._alive:
                    self._alive = well
                    if self._settings.ready_file is not None:
                        self._settings.ready_file.touch()
            except Exception as error:  # whatever it is, not being able to look is what counts
                log.warning("event=watchdog_cannot_look error=%r", error)
        if consumer is not None:
            consumer.close(autocommit=False)

    def _guard(self) -> None:
        # A thread of its own: a look may hang as long as the broker does.
        limit = self._settings.watchdog_s
        while not self._stop.wait(limit / 20):
            silent = time.monotonic() - self._alive
            if silent > limit:
                log.critical("event=stalled no_progress_s=%.1f exit=%d", silent, EXIT_STALLED)
                faulthandler.dump_traceback(sys.stderr, all_threads=True)
                sys.stderr.flush()
                os._exit(EXIT_STALLED)

    def _look(self, consumer: KafkaConsumer) -> float:
        """Return until when everything was well: the time of the partition that has waited longest."""
        now = time.monotonic()
        mine = [TopicPartition(*place) for place in self._assigned()]
        watched = mine or [TopicPartition(self._topic, p) for p in consumer.partitions_for_topic(self._topic) or ()]
        ends = consumer.end_offsets(watched)
        committed = {tp: consumer.committed(tp) for tp in watched}
        for tp, offset in committed.items():
            moved = tp not in self._moved or offset != self._committed.get(tp)
            if moved or offset == ends[tp] or not _has_record(consumer, tp, offset):
                self._moved[tp] = now
        self._moved = {tp: self._moved[tp] for tp in watched}
        self._committed = committed
        times = self._moved.values()
        return min(times, default=now) if mine else max(times, default=now)


def _has_record(consumer: KafkaConsumer, tp: TopicPartition, offset: int | None) -> bool:
    """Say whether there is anything to read; behind the last record a transaction's marker may lie."""
    consumer.assign([tp])
    if offset is None:
        consumer.seek_to_beginning(tp)
    else:
        consumer.seek(tp, offset)
    return bool(consumer.poll(timeout_ms=1000, max_records=1))
