"""The state of an agent: what it must offer, and when it has to be read anew.

The broker calls a rebalance for every process that comes or goes, and most partitions stay where they are. Their state
in memory is still right where the group's committed offset is the one that this process has committed last: nobody has
gone on meanwhile.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Protocol

from kafka import KafkaConsumer, TopicPartition

from acclimate.infra.settings import Settings
from acclimate.streams.agents.pipeline import Partition
from acclimate.streams.wire.connect import kafka_python_options
from acclimate.streams.wire.records import Outgoing

__all__ = ["Restorer", "State"]

PROGRESS_LOG_S = 5.0

log = logging.getLogger(__name__)


class State(Protocol):
    """What an agent remembers of the records that it has read; the host calls it from the thread of `Agent.process`.

    After a kill the agent meets records again that its state already holds: it keeps the offset of the last record with
    the state of each device, and has no outputs for a record at or below it.
    """

    def retain(self, partitions: Set[int]) -> None:
        """Forget all partitions but these."""

    def restore(self, partitions: Set[int], progress: Callable[[int], None]) -> None:
        """Read the state of these partitions from where `snapshot` has put it, whatever is in memory.

        It may take as long as it likes and say by `progress`, again and again, how many records it has read: the
        watchdog ends a process that is silent. A `KafkaError` ends the process, which is started again.
        """

    def snapshot(self) -> Sequence[Outgoing]:
        """Return records with the state that has changed since the last snapshot."""


class Restorer:
    """Bring the state of newly assigned partitions into memory, and keep that of partitions that stay.

    Args:
        settings: The broker.
        group: The agent's consumer group.
        state: The agent's state.
    """

    def __init__(self, settings: Settings, group: str, state: State) -> None:
        self._settings = settings
        self._group = group
        self._state = state
        self._stands_at: dict[Partition, int | None] = {}  # the committed offsets that the state in memory belongs to

    def committed(self, offsets: Mapping[Partition, int]) -> None:
        """Note what the group has committed together with the state in memory."""
        self._stands_at |= offsets

    def distrust(self) -> None:
        """Restore all partitions next time: the state in memory may be ahead of what is kept."""
        self._stands_at = {}

    def restore(self, places: Set[Partition], check: Callable[[], None]) -> None:
        """Have exactly the state of these partitions in memory when this returns.

        Args:
            places: The partitions that are assigned now.
            check: Called again and again; may raise to give up, and the next call restores what is missing.

        Raises:
            KafkaError: The broker does not answer.
        """
        check()
        offsets = _committed_offsets(self._settings, self._group, places)
        known = self._stands_at
        kept = {place for place in places if place in known and known[place] == offsets[place]}
        missing = {number for _, number in places - kept}
        self._stands_at = {place: offsets[place] for place in kept}
        self._state.retain({number for _, number in kept})
        started = said = time.monotonic()

        def progress(records: int) -> None:
            nonlocal said
            check()
            now = time.monotonic()
            if now - said >= PROGRESS_LOG_S:
                said = now
                log.info("event=restoring records=%d seconds=%.0f", records, now - started)

        if missing:
            log.info("event=restoring partitions=%s kept=%d", sorted(missing), len(kept))
            self._state.restore(missing, progress)
            log.info("event=restored partitions=%s seconds=%.1f", sorted(missing), time.monotonic() - started)
        self._stands_at = offsets


def _committed_offsets(settings: Settings, group: str, places: Set[Partition]) -> dict[Partition, int | None]:
    """Return the group's committed offsets; None where there is none yet.

    Raises:
        KafkaError: The broker does not answer.
    """
    consumer = KafkaConsumer(**kafka_python_options(settings), group_id=group, enable_auto_commit=False)
    try:
        return {place: consumer.committed(TopicPartition(*place)) for place in places}
    finally:
        consumer.close(autocommit=False)
