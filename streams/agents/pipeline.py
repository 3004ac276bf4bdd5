"""Records in, outputs out, offsets acknowledged strictly in order and only after the broker holds the output.

    put -> [intake] -> process (one thread) -> send -> [in flight] -> broker's ack -> next offset to commit

Awaiting each send would cost a factor of twenty, so up to ``in_flight_max`` records are under way at once; they are
completed in the order in which they were read. Faust's own acknowledgement is not used: it counts messages that it
skipped after a rebalance as done, and its committed offset can pass a message that is still in flight.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from aiokafka.errors import MessageSizeTooLargeError

from streams.agents.adapt import Crash
from streams.wire.records import Incoming, Outgoing

__all__ = ["Partition", "Pipeline"]

Partition = tuple[str, int]

# Together in one engine run. More adds latency and no speed: the engine works in chunks of 32 windows.
RECORDS_PER_BATCH = 64
BYTES_PER_BATCH = 2_000_000
# A compressed record may unpack to 40 MB, so a bound on the number of records alone is no bound on memory.
BYTES_IN_FLIGHT_MAX = 64_000_000


@dataclass(frozen=True)
class _Tracked:
    record: Incoming
    generation: int

    @property
    def size(self) -> int:
        return len(self.record.value or b"")


class Pipeline:
    """Bounded, ordered processing of one worker's records.

    Args:
        process: Pure function from records to as many outputs; runs in a thread.
        send: Hands a record to the producer and returns a future that resolves when the broker has it.
        on_crash: Deals with a bug, after all earlier outputs are acknowledged: the record is done when it returns.
        in_flight_max: Records between ``put`` and acknowledgement; ``put`` waits beyond it.
    """

    def __init__(
        self,
        process: Callable[[Sequence[Incoming]], Sequence[Outgoing | Crash]],
        send: Callable[[Outgoing], Awaitable[asyncio.Future[object]]],
        on_crash: Callable[[Crash], Awaitable[None]],
        in_flight_max: int,
    ) -> None:
        self._process = process
        self._send = send
        self._on_crash = on_crash
        self._in_flight_max = in_flight_max
        self._records = 0
        self._bytes = 0
        self._left = asyncio.Event()
        self._intake: asyncio.Queue[_Tracked] = asyncio.Queue()
        self._in_flight: asyncio.Queue[tuple[_Tracked, asyncio.Future[object]]] = asyncio.Queue()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="adapt")
        self._generation = 0
        self._closed = False
        self._next_offsets: dict[Partition, int] = {}
        self._committed: dict[Partition, int] = {}

    async def put(self, record: Incoming) -> None:
        """Take a record; waits while too much is under way.

        A record that comes, or still waits, while the pipeline settles is ignored: it was not acknowledged and will be
        read again.
        """
        tracked = _Tracked(record, self._generation)  # before waiting: the partition may be revoked meanwhile
        while self._records >= self._in_flight_max or self._bytes >= BYTES_IN_FLIGHT_MAX:
            self._left.clear()
            await self._left.wait()
        if not self._closed and tracked.generation == self._generation:
            self._records += 1
            self._bytes += tracked.size
            self._intake.put_nowait(tracked)

    async def run(self) -> None:
        """Process until cancelled; any exception but a recorded crash ends the worker."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._process_loop())
            tasks.create_task(self._complete_loop())

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
            self._leave(self._intake.get_nowait())
            self._intake.task_done()
        await self._intake.join()
        await self._in_flight.join()

    def reopen(self) -> None:
        """Take records of a new generation: what is still under way may be sent, and is not acknowledged any more."""
        self._generation += 1
        self._next_offsets = {}
        self._committed = {}
        self._closed = False

    def _leave(self, tracked: _Tracked) -> None:
        self._records -= 1
        self._bytes -= tracked.size
        self._left.set()

    async def _process_loop(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._intake.get()]
            size = batch[0].size
            while not self._intake.empty() and len(batch) < RECORDS_PER_BATCH and size < BYTES_PER_BATCH:
                batch.append(self._intake.get_nowait())
                size += batch[-1].size
            records = [tracked.record for tracked in batch]
            outputs = await loop.run_in_executor(self._executor, self._process, records)
            for tracked, output in zip(batch, outputs, strict=True):
                self._in_flight.put_nowait((tracked, await self._hand_over(tracked, output)))
                self._intake.task_done()

    async def _hand_over(self, tracked: _Tracked, output: Outgoing | Crash) -> asyncio.Future[object]:
        if isinstance(output, Outgoing):
            try:
                return await self._send(output)
            except MessageSizeTooLargeError as error:  # our own limit
                output = Crash(tracked.record, error)
        await self._in_flight.join()
        await self._on_crash(output)
        done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def _complete_loop(self) -> None:
        while True:
            tracked, sent = await self._in_flight.get()
            try:
                await sent  # other errors end the worker: the producer has retried for as long as the watchdog allows
            except MessageSizeTooLargeError as error:  # the broker's limit; waiting will not help
                await self._on_crash(Crash(tracked.record, error))
            if tracked.generation == self._generation:
                record = tracked.record
                self._next_offsets[record.topic, record.partition] = record.offset + 1
            self._in_flight.task_done()
            self._leave(tracked)
