"""Records in, outputs out, offsets acknowledged strictly in order and only after the broker holds the outputs.

    put -> [intake] -> process (one thread) -> send -> [in flight] -> broker's acks -> next offset to commit

Awaiting each send would cost a factor of twenty, so up to ``in_flight_max`` records are under way at once; they are
completed in the order in which they were read. Faust's own acknowledgement is not used: it counts messages that it
skipped after a rebalance as done, and its committed offset can pass a message that is still in flight.

A core with state is acknowledged by checkpoints alone. A checkpoint travels the same way as the records: it takes the
state between two records, and where it arrives all outputs before it are in Kafka. Then its state is sent, and when
that is in Kafka as well, the offsets before it may be committed: outputs, then state, then offsets.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from aiokafka.errors import MessageSizeTooLargeError

from acclimate.streams.wire.records import Incoming, Outgoing

__all__ = ["Crash", "Partition", "Pipeline", "Process"]

Partition = tuple[str, int]
Process = Callable[[Sequence[Incoming]], Sequence[Sequence[Outgoing]]]
Sent = asyncio.Future[object]
T = TypeVar("T")

# Together in one engine run. More adds latency and no speed: the engine works in chunks of 32 windows.
RECORDS_PER_BATCH = 64
BYTES_PER_BATCH = 2_000_000
# A compressed record may unpack to 40 MB, so a bound on the number of records alone is no bound on memory.
BYTES_IN_FLIGHT_MAX = 64_000_000


@dataclass(frozen=True)
class Crash:
    """An exception that nobody expected, met while this record was processed."""

    record: Incoming
    error: Exception


@dataclass(frozen=True)
class _Tracked:
    record: Incoming
    generation: int

    @property
    def size(self) -> int:
        return len(self.record.value or b"")

    @property
    def place(self) -> Partition:
        return self.record.topic, self.record.partition


@dataclass(frozen=True)
class _Checkpoint:
    generation: int
    state: Sequence[Outgoing] = ()


class Pipeline:
    """Bounded, ordered processing of one agent's records.

    Args:
        process: Function from records to the outputs of each, any number of them; runs in a thread.
        send: Hands a record to the producer and returns a future that resolves when the broker has it.
        on_crash: Deals with a bug, after all earlier outputs are acknowledged: the record is done when it returns.
        in_flight_max: Records between ``put`` and acknowledgement; ``put`` waits beyond it.
        snapshot: Returns records with the state that has changed since the last snapshot; runs in the same thread.
            None where `process` has no state: then every record is acknowledged by itself, and after an exception the
            records of a batch run once more one by one, so that the guilty one alone is a `Crash`. With state, every
            record runs alone from the start, for after an exception nothing may run again.
    """

    def __init__(
        self,
        process: Process,
        send: Callable[[Outgoing], Awaitable[Sent]],
        on_crash: Callable[[Crash], Awaitable[None]],
        in_flight_max: int,
        snapshot: Callable[[], Sequence[Outgoing]] | None = None,
    ) -> None:
        self._process = process
        self._send = send
        self._on_crash = on_crash
        self._in_flight_max = in_flight_max
        self._snapshot = snapshot
        self._batch_max = RECORDS_PER_BATCH if snapshot is None else 1
        self._records = 0
        self._bytes = 0
        self._changed = asyncio.Event()
        self._intake: asyncio.Queue[_Tracked | _Checkpoint] = asyncio.Queue()
        self._in_flight: asyncio.Queue[tuple[_Tracked, list[Sent]] | _Checkpoint] = asyncio.Queue()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="core")
        self._generation = 0
        self._closed = False
        self._admitted: set[Partition] = set()
        self._answered: dict[Partition, int] = {}  # next offsets, up to which all outputs are in Kafka
        self._next_offsets: dict[Partition, int] = {}  # of these, what may be committed
        self._committed: dict[Partition, int] = {}

    async def put(self, record: Incoming) -> None:
        """Take a record; waits while too much is under way, and until its partition is admitted.

        A record that comes, or still waits, while the pipeline settles is ignored: it was not acknowledged and will be
        read again.
        """
        tracked = _Tracked(record, self._generation)  # before waiting: the partition may be revoked meanwhile
        while tracked.generation == self._generation and not self._may_enter(tracked):
            self._changed.clear()
            await self._changed.wait()
        if not self._closed and tracked.generation == self._generation:
            self._records += 1
            self._bytes += tracked.size
            self._intake.put_nowait(tracked)

    @property
    def generation(self) -> int:
        """How often the pipeline was reopened."""
        return self._generation

    def admit(self, generation: int, partitions: Iterable[Partition]) -> None:
        """Let records of these partitions in, for whatever they need is there; ignored in a later generation."""
        if generation == self._generation:
            self._admitted |= set(partitions)
            self._changed.set()

    async def between(self, function: Callable[..., T], *args: object) -> T:
        """Run something in the thread of `process`, between two batches, and return what it returns."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)

    async def run(self) -> None:
        """Process until cancelled; any exception but a recorded crash ends the agent."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._process_loop())
            tasks.create_task(self._complete_loop())

    def checkpoint(self) -> None:
        """Keep the state as it is after the records that were taken so far; see `committable` for when it is."""
        if self._snapshot is not None and self._admitted and not self._closed:
            self._intake.put_nowait(_Checkpoint(self._generation))

    def committable(self) -> dict[Partition, int]:
        """Return the next offset to read of every partition where it is not the committed one."""
        return {place: offset for place, offset in self._next_offsets.items() if self._committed.get(place) != offset}

    def committed(self, offsets: dict[Partition, int]) -> None:
        """Note that the broker holds these offsets of the present generation."""
        self._committed |= offsets

    async def settle(self) -> None:
        """Take nothing more, forget what is not yet begun and wait for the rest; :meth:`reopen` takes records again."""
        # Closed first: a record that waits for room would otherwise follow the ones that are forgotten here, and its
        # offset would be committed past theirs.
        self._closed = True
        while not self._intake.empty():
            forgotten = self._intake.get_nowait()
            if isinstance(forgotten, _Tracked):
                self._leave(forgotten)
            self._intake.task_done()
        if self._snapshot is not None and self._admitted:
            self._intake.put_nowait(_Checkpoint(self._generation))
        await self._intake.join()
        await self._in_flight.join()

    def reopen(self) -> None:
        """Take records of a new generation: what is still under way may be sent, and is not acknowledged any more."""
        self._generation += 1
        self._admitted = set()
        self._answered = {}
        self._next_offsets = {}
        self._committed = {}
        self._closed = False
        self._changed.set()

    def _may_enter(self, tracked: _Tracked) -> bool:
        room = self._records < self._in_flight_max and self._bytes < BYTES_IN_FLIGHT_MAX
        return self._closed or (room and tracked.place in self._admitted)

    def _leave(self, tracked: _Tracked) -> None:
        self._records -= 1
        self._bytes -= tracked.size
        self._changed.set()

    async def _process_loop(self) -> None:
        while True:
            first = await self._intake.get()
            if isinstance(first, _Checkpoint):
                state = await self.between(self._snapshot) if self._snapshot and self._is_present(first) else ()
                self._in_flight.put_nowait(_Checkpoint(first.generation, state))
                self._intake.task_done()
                continue
            batch, size = [first], first.size
            while not self._intake.empty() and len(batch) < self._batch_max and size < BYTES_PER_BATCH:
                following = self._intake.get_nowait()
                assert isinstance(following, _Tracked)  # where there are checkpoints, a batch has one record
                batch.append(following)
                size += following.size
            results = await self.between(self._process_safely, [tracked.record for tracked in batch])
            for tracked, result in zip(batch, results, strict=True):
                self._in_flight.put_nowait((tracked, await self._hand_over(tracked, result)))
                self._intake.task_done()

    def _process_safely(self, records: Sequence[Incoming]) -> list[Sequence[Outgoing] | Crash]:
        """Return the outputs of each record, or the bug that was met at it."""
        try:
            results = self._process(records)
            if len(results) != len(records):
                raise ValueError(f"expected the outputs of {len(records)} records, got those of {len(results)}")
            return list(results)
        except Exception as error:
            if len(records) == 1:
                return [Crash(records[0], error)]
            return [result for record in records for result in self._process_safely([record])]

    async def _hand_over(self, tracked: _Tracked, result: Sequence[Outgoing] | Crash) -> list[Sent]:
        sent: list[Sent] = []
        if not isinstance(result, Crash):
            try:
                for output in result:
                    sent.append(await self._send(output))
                return sent
            except MessageSizeTooLargeError as error:  # our own limit
                result = Crash(tracked.record, error)
        await self._in_flight.join()
        await self._on_crash(result)
        return sent  # what came before the crash must be in Kafka as well before the record counts

    async def _complete_loop(self) -> None:
        while True:
            item = await self._in_flight.get()
            if isinstance(item, _Checkpoint):
                await self._keep(item)
            else:
                await self._acknowledge(*item)
            self._in_flight.task_done()

    async def _acknowledge(self, tracked: _Tracked, outputs: list[Sent]) -> None:
        crash = None
        for sent in outputs:
            try:
                await sent  # other errors end the agent: the producer has retried for as long as the watchdog allows
            except MessageSizeTooLargeError as error:  # the broker's limit; waiting will not help
                crash = crash or Crash(tracked.record, error)
        if crash is not None:
            await self._on_crash(crash)
        if self._is_present(tracked):
            self._answered[tracked.place] = tracked.record.offset + 1
            if self._snapshot is None:
                self._next_offsets[tracked.place] = tracked.record.offset + 1
        self._leave(tracked)

    async def _keep(self, checkpoint: _Checkpoint) -> None:
        """Send the state, and once it is in Kafka let the offsets of all that is in it be committed."""
        covered = dict(self._answered)
        if self._is_present(checkpoint):
            for sent in [await self._send(record) for record in checkpoint.state]:
                await sent
        if self._is_present(checkpoint):  # still
            self._next_offsets = covered

    def _is_present(self, item: _Tracked | _Checkpoint) -> bool:
        return item.generation == self._generation
