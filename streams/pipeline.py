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

from streams.adapt import Crash
from streams.records import Incoming, Outgoing

__all__ = ["Partition", "Pipeline"]

Partition = tuple[str, int]

# Together in one engine run. More adds latency and no speed: the engine works in chunks of 32 windows.
RECORDS_PER_BATCH = 64
BYTES_PER_BATCH = 4_000_000


@dataclass(frozen=True)
class _Tracked:
    record: Incoming
    generation: int


class Pipeline:
    """Bounded, ordered processing of one worker's records.

    Args:
        process: Pure function from records to as many outputs; runs in a thread.
        send: Hands a record to the producer and returns a future that resolves when the broker has it.
        on_crash: Called with a bug, after all earlier outputs are acknowledged; returns a record to send instead, or
            does not return.
        in_flight_max: Records between ``put`` and acknowledgement; ``put`` waits beyond it.
    """

    def __init__(
        self,
        process: Callable[[Sequence[Incoming]], Sequence[Outgoing | Crash]],
        send: Callable[[Outgoing], Awaitable[asyncio.Future[object]]],
        on_crash: Callable[[Crash], Awaitable[Outgoing]],
        in_flight_max: int,
    ) -> None:
        self._process = process
        self._send = send
        self._on_crash = on_crash
        self._room = asyncio.Semaphore(in_flight_max)
        self._intake: asyncio.Queue[_Tracked] = asyncio.Queue()
        self._in_flight: asyncio.Queue[tuple[_Tracked, asyncio.Future[object]]] = asyncio.Queue()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="adapt")
        self._generation = 0
        self._stopping = False
        self._next_offsets: dict[Partition, int] = {}

    async def put(self, record: Incoming) -> None:
        """Take a record; waits while too many are under way. After :meth:`drain` records are ignored."""
        generation = self._generation  # before waiting: the partition may be revoked meanwhile
        await self._room.acquire()
        if self._stopping or generation != self._generation:
            self._room.release()
            return
        self._intake.put_nowait(_Tracked(record, generation))

    async def run(self) -> None:
        """Process until cancelled; any exception but a recorded crash ends the worker."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._process_loop())
            tasks.create_task(self._complete_loop())

    def committable(self) -> dict[Partition, int]:
        """Return the next offset to read of every partition with something acknowledged since the last call."""
        offsets, self._next_offsets = self._next_offsets, {}
        return offsets

    async def drain(self) -> dict[Partition, int]:
        """Stop taking records, forget those not yet begun, wait for the others and return what can be committed."""
        self._stopping = True
        await self._settle()
        return self.committable()

    async def revoke(self) -> dict[Partition, int]:
        """Settle before partitions change hands; completions of the old generation are ignored from then on."""
        await self._settle()
        offsets = self.committable()
        self.forget()
        return offsets

    def forget(self) -> None:
        """Start a new generation: whatever is still under way may be sent, but is not acknowledged any more."""
        self._generation += 1
        self._next_offsets = {}

    async def _settle(self) -> None:
        while not self._intake.empty():
            self._intake.get_nowait()
            self._intake.task_done()
            self._room.release()
        await self._intake.join()
        await self._in_flight.join()

    async def _process_loop(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._intake.get()]
            size = len(batch[0].record.value or b"")
            while not self._intake.empty() and len(batch) < RECORDS_PER_BATCH and size < BYTES_PER_BATCH:
                batch.append(self._intake.get_nowait())
                size += len(batch[-1].record.value or b"")
            records = [tracked.record for tracked in batch]
            outputs = await loop.run_in_executor(self._executor, self._process, records)
            for tracked, output in zip(batch, outputs, strict=True):
                if isinstance(output, Crash):
                    await self._in_flight.join()
                    output = await self._on_crash(output)
                self._in_flight.put_nowait((tracked, await self._send(output)))
                self._intake.task_done()

    async def _complete_loop(self) -> None:
        while True:
            tracked, sent = await self._in_flight.get()
            await sent  # an error here ends the worker: the producer has retried for as long as the watchdog allows
            if tracked.generation == self._generation:
                record = tracked.record
                self._next_offsets[record.topic, record.partition] = record.offset + 1
            self._in_flight.task_done()
            self._room.release()
