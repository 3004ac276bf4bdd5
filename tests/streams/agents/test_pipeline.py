"""What is committed must never lie beyond something unanswered, whatever happens while records are under way."""

import asyncio
import threading

import pytest
from aiokafka.errors import MessageSizeTooLargeError

from streams.agents.adapt import Crash
from streams.agents.pipeline import Pipeline
from streams.wire.records import Incoming, Outgoing


def incoming(offset, value=b"x", partition=0):
    return Incoming("f", partition, offset, 0, b"k", value, ())


class World:
    """A pipeline whose broker acknowledges what the test lets it."""

    def __init__(self, in_flight_max=256, crash_at=()):
        self.sent, self.futures, self.crashed = [], [], []
        self.crash_at = crash_at
        self.hold = asyncio.Event()
        self.hold.set()
        self.engine_free = threading.Event()
        self.engine_free.set()
        self.pipeline = Pipeline(self.process, self.send, self.on_crash, in_flight_max)

    def process(self, records):
        self.engine_free.wait()
        return [Crash(r, ValueError()) if r.offset in self.crash_at else Outgoing("p", b"k", r, ()) for r in records]

    async def send(self, output):
        future = asyncio.get_running_loop().create_future()
        self.sent.append(output.value.offset)
        self.futures.append(future)
        if self.hold.is_set():
            future.set_result(None)
        return future

    async def on_crash(self, crash):
        self.crashed.append((crash.record.offset, list(self.sent)))

    async def __aenter__(self):
        self.task = asyncio.create_task(self.pipeline.run())
        return self

    async def __aexit__(self, *_):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def test_offsets_are_acknowledged_only_up_to_the_first_unacknowledged_output():
    async def scenario():
        async with World() as world:
            world.hold.clear()
            for offset in range(5):
                await world.pipeline.put(incoming(offset))
            await until(lambda: len(world.sent) == 5)
            for i in (4, 3, 1, 0):  # the broker answers in any order; 2 stays open
                world.futures[i].set_result(None)
            await until(lambda: world.pipeline.committable())
            await asyncio.sleep(0.05)
            assert world.pipeline.committable() == {("f", 0): 2}
            world.futures[2].set_result(None)
            await until(lambda: world.pipeline.committable() == {("f", 0): 5})

    asyncio.run(scenario())


def test_a_full_pipeline_commits_nothing_past_the_records_that_a_rebalance_drops():
    async def scenario():
        async with World(in_flight_max=16) as world:
            world.engine_free.clear()
            await world.pipeline.put(incoming(0))
            await asyncio.sleep(0.1)  # now it is being processed
            waiting = [asyncio.create_task(world.pipeline.put(incoming(offset))) for offset in range(1, 17)]
            await asyncio.sleep(0.1)  # fifteen wait in the intake, the last one for room
            settling = asyncio.create_task(world.pipeline.settle())
            await asyncio.sleep(0.1)
            world.engine_free.set()
            await settling
            await asyncio.gather(*waiting)
            await asyncio.sleep(0.1)
            committed = world.pipeline.committable()[("f", 0)]
            assert committed == 1
            assert world.sent == list(range(committed))
            world.pipeline.reopen()
            assert world.pipeline.committable() == {}

    asyncio.run(scenario())


def test_completions_from_before_a_rebalance_are_not_acknowledged_after_it():
    async def scenario():
        async with World() as world:
            world.hold.clear()
            await world.pipeline.put(incoming(7))
            await until(lambda: world.sent)
            world.pipeline.reopen()  # the rebalance did not wait
            world.futures[0].set_result(None)
            await asyncio.sleep(0.05)
            assert world.pipeline.committable() == {}

    asyncio.run(scenario())


def test_a_failed_commit_is_offered_again():
    async def scenario():
        async with World() as world:
            await world.pipeline.put(incoming(0))
            await until(lambda: world.pipeline.committable())
            assert world.pipeline.committable() == world.pipeline.committable() == {("f", 0): 1}
            world.pipeline.committed({("f", 0): 1})
            assert world.pipeline.committable() == {}

    asyncio.run(scenario())


@pytest.mark.parametrize(("records", "size"), [(1000, 1), (40, 10_000_000)])
def test_records_and_bytes_under_way_are_bounded(records, size):
    async def scenario():
        async with World(in_flight_max=100) as world:
            world.hold.clear()
            put = asyncio.create_task(fill(world))
            await asyncio.sleep(0.3)
            assert world.pipeline._records <= 100
            assert world.pipeline._bytes <= 64_000_000 + size
            put.cancel()

    async def fill(world):
        value = b"x" * size
        for offset in range(records):
            await world.pipeline.put(incoming(offset, value))

    asyncio.run(scenario())


def test_a_bug_is_dealt_with_after_all_earlier_outputs_and_before_later_ones():
    async def scenario():
        async with World(crash_at={2}) as world:
            for offset in range(5):
                await world.pipeline.put(incoming(offset))
            await until(lambda: world.pipeline.committable() == {("f", 0): 5})
            assert world.crashed == [(2, [0, 1])]
            assert world.sent == [0, 1, 3, 4]

    asyncio.run(scenario())


def test_an_output_that_the_broker_refuses_for_its_size_counts_as_a_bug_and_not_as_an_outage():
    async def scenario():
        async with World() as world:
            world.hold.clear()
            await world.pipeline.put(incoming(0))
            await until(lambda: world.futures)
            world.futures[0].set_exception(MessageSizeTooLargeError())
            await until(lambda: world.pipeline.committable() == {("f", 0): 1})
            assert world.crashed == [(0, [0])]

    asyncio.run(scenario())


def test_any_other_send_error_ends_the_run():
    async def scenario():
        async with World() as world:
            world.hold.clear()
            await world.pipeline.put(incoming(0))
            await until(lambda: world.futures)
            world.futures[0].set_exception(ConnectionError("gone"))
            with pytest.raises(ExceptionGroup):
                await asyncio.wait_for(world.task, 5)
            assert world.pipeline.committable() == {}

    asyncio.run(scenario())
