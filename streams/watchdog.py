"""Ends a process that has work and makes no progress.

Faust workers are known to stall silently. The watchdog looks from outside: in its own thread and over its own
connection it compares the group's committed offsets with the ends of the partitions, so it notices a frozen event loop
as well as a consumer that no longer fetches. A broker that cannot be reached counts as no progress.
"""

import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from infra.settings import Settings
from streams.connect import kafka_python_options
from streams.pipeline import Partition

__all__ = ["EXIT_STALLED", "Watchdog"]

EXIT_STALLED = 75  # EX_TEMPFAIL: restart me

log = logging.getLogger(__name__)


class Watchdog:
    """Watch the partitions that ``assigned`` returns; exit with 75 after ``settings.watchdog_s`` without progress.

    Args:
        settings: Broker, time limit and the ready file, which is touched after every look that found progress.
        group: Consumer group whose commits are the progress.
        assigned: Returns the partitions of this worker; none at all counts as progress.
    """

    def __init__(self, settings: Settings, group: str, assigned: Callable[[], Iterable[Partition]]) -> None:
        self._settings = settings
        self._group = group
        self._assigned = assigned
        self._committed: dict[TopicPartition, int] = {}
        self._stop = threading.Event()
        self._alive = 0.0
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; returns at once, the thread closes its connection by itself."""
        self._stop.set()

    def _run(self) -> None:
        limit = self._settings.watchdog_s
        guard = threading.Thread(target=self._guard, args=(limit,), name="watchdog-guard", daemon=True)
        self._alive = time.monotonic()
        guard.start()
        consumer: KafkaConsumer | None = None
        while not self._stop.wait(min(limit / 6, 5.0)):
            try:
                if consumer is None:
                    consumer = KafkaConsumer(
                        **kafka_python_options(self._settings), group_id=self._group, enable_auto_commit=False
                    )
                progress = self._progress(consumer)
            except KafkaError as error:
                log.warning("event=watchdog_cannot_look error=%r", error)
                continue
            if progress:
                self._alive = time.monotonic()
                _touch(self._settings.ready_file)
        if consumer is not None:
            consumer.close(autocommit=False)

    def _guard(self, limit: float) -> None:
        # A thread of its own: a look may hang as long as the broker does.
        while not self._stop.wait(limit / 20):
            silent = time.monotonic() - self._alive
            if silent > limit:
                log.critical("event=stalled no_progress_s=%.1f exit=%d", silent, EXIT_STALLED)
                faulthandler.dump_traceback(sys.stderr, all_threads=True)
                sys.stderr.flush()
                os._exit(EXIT_STALLED)

    def _progress(self, consumer: KafkaConsumer) -> bool:
        partitions = [TopicPartition(*p) for p in self._assigned()]
        if not partitions:
            self._committed = {}
            return True
        ends = consumer.end_offsets(partitions)
        begins = consumer.beginning_offsets(partitions)
        committed = {tp: consumer.committed(tp) for tp in partitions}
        positions = {tp: begins[tp] if at is None else at for tp, at in committed.items()}
        moved = positions != self._committed
        self._committed = positions
        return moved or all(positions[tp] >= ends[tp] for tp in partitions)


def _touch(path: Path | None) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
