"""What is committed must never lie beyond something unanswered, whatever happens while records are under way."""

import asyncio
import threading

import pytest
from aiokafka.errors import MessageSizeTooLargeError

from acclimate.streams.agents.pipeline import Pipeline
from acclimate.streams.wire.records import Incoming, Outgoing


def incoming(offset, value=b"x", partition=0):
    return Incoming("f", partition, offset, 0, b"k", value, ())


class World:
    """A pipeline whose broker acknowledges what the test lets it."""

    def __init__(self, in_flight_max=256, crash_at=(), outputs=lambda offset: 1, stateful=False):
        self.sent, self.futures, self.crashed, self.batches = [], [], [], []
        self.crash_at, self.outputs = crash_at, outputs
        self.hold = asyncio.Event()
        self.hold.set()
        self.engine_free = threading.Event()
        self.engine_free.set()
        snapshot = self.snapshot if stateful else None
        self.pipeline = Pipeline(self.process, self.send, self.on_crash, in_flight_max, snapshot)
        self.pipeline.admit(0, {("f", 0)})

    def process(self, records):
        self.engine_free.wait()
        self.batches.append([record.offset for record in records])
        if any(record.offset in self.crash_at for record in records):
            raise ZeroDivisionError("a bug")
        return [[Outgoing("p", b"k", record, ())] * self.outputs(record.offset) for record in records]

    def snapshot(self):
        """The state is the offset of the last record that was processed."""
        return [Outgoing("s", b"k", incoming(("state", self.batches[-1][-1])), ())] if self.batches else []

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
            world.pipeline.admit(1, {("f", 0)})
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


def test_a_batch_with_a_bug_runs_again_record_by_record_so_that_the_guilty_one_alone_counts():
    async def scenario():
        async with World(crash_at={2}) as world:
            world.engine_free.clear()
            await world.pipeline.put(incoming(0))
            await asyncio.sleep(0.1)  # now it is being processed, and the next ones wait for one another
            for offset in range(1, 5):
                await world.pipeline.put(incoming(offset))
            world.engine_free.set()
            await until(lambda: world.pipeline.committable() == {("f", 0): 5})
            assert [offset for offset, _ in world.crashed] == [2]
            assert world.batches == [[0], [1, 2, 3, 4], [1], [2], [3], [4]]
            assert world.sent == [0, 1, 3, 4]

    asyncio.run(scenario())


def test_a_record_without_outputs_is_acknowledged_and_one_with_many_after_the_last_of_them():
    async def scenario():
        async with World(outputs=lambda offset: (0, 3, 1)[offset]) as world:
            world.hold.clear()
            for offset in range(3):
                await world.pipeline.put(incoming(offset))
            await until(lambda: world.sent == [1, 1, 1, 2])
            await until(lambda: world.pipeline.committable() == {("f", 0): 1})
            for i in (3, 2, 0):
                world.futures[i].set_result(None)
            await asyncio.sleep(0.05)
            assert world.pipeline.committable() == {("f", 0): 1}
            world.futures[1].set_result(None)
            await until(lambda: world.pipeline.committable() == {("f", 0): 3})

    asyncio.run(scenario())


def test_outputs_of_another_number_of_records_are_a_bug_and_end_no_worker():
    async def scenario():
        async with World() as world:
            world.pipeline._process = lambda records: [[]] * (len(records) + 1)
            await world.pipeline.put(incoming(0))
            await until(lambda: world.pipeline.committable() == {("f", 0): 1})
            assert [offset for offset, _ in world.crashed] == [0]

    asyncio.run(scenario())


def test_a_record_of_a_partition_that_is_not_admitted_waits_and_holds_what_came_behind_it():
    async def scenario():
        async with World() as world:
            world.pipeline.reopen()
            putting = asyncio.create_task(world.pipeline.put(incoming(4)))
            world.pipeline.admit(0, {("f", 0)})  # meant for the time before
            await asyncio.sleep(0.1)
            assert not putting.done()
            assert not world.batches
            world.pipeline.admit(1, {("f", 0)})
            await until(lambda: world.pipeline.committable() == {("f", 0): 5})

    asyncio.run(scenario())


def test_a_record_that_waits_for_its_partition_is_dropped_when_the_partition_goes():
    async def scenario():
        async with World() as world:
            world.pipeline.reopen()
            putting = asyncio.create_task(world.pipeline.put(incoming(4)))
            await asyncio.sleep(0.05)
            await world.pipeline.settle()
            world.pipeline.reopen()
            await asyncio.wait_for(putting, 5)
            world.pipeline.admit(2, {("f", 0)})
            await asyncio.sleep(0.05)
            assert not world.batches

    asyncio.run(scenario())


def test_with_state_nothing_is_committed_before_outputs_and_then_state_are_in_kafka():
    async def scenario():
        async with World(stateful=True) as world:
            world.hold.clear()
            for offset in range(3):
                await world.pipeline.put(incoming(offset))
            world.pipeline.checkpoint()
            await world.pipeline.put(incoming(3))
            await until(lambda: len(world.sent) == 4)
            assert world.batches == [[0], [1], [2], [3]]  # one at a time
            assert world.pipeline.committable() == {}
            for future in list(world.futures):
                future.set_result(None)
            await until(lambda: ("state", 2) in world.sent)
            await asyncio.sleep(0.05)
            assert world.pipeline.committable() == {}
            world.futures[-1].set_result(None)
            await until(lambda: world.pipeline.committable() == {("f", 0): 3})  # record 3 is answered, and not kept yet
            assert world.sent == [0, 1, 2, 3, ("state", 2)]

    asyncio.run(scenario())


def test_settling_with_state_keeps_it_once_more():
    async def scenario():
        async with World(stateful=True) as world:
            await world.pipeline.put(incoming(0))
            await until(lambda: world.sent)
            await world.pipeline.settle()
            assert world.sent[-1] == ("state", 0)
            assert world.pipeline.committable() == {("f", 0): 1}

    asyncio.run(scenario())


def test_a_state_from_before_a_rebalance_is_not_sent_after_it():
    async def scenario():
        async with World(stateful=True) as world:
            world.hold.clear()
            await world.pipeline.put(incoming(0))
            world.pipeline.checkpoint()
            await until(lambda: world.sent == [0])
            world.pipeline.reopen()  # the rebalance did not wait
            world.futures[0].set_result(None)
            await asyncio.sleep(0.1)
            assert world.sent == [0]
            assert world.pipeline.committable() == {}

    asyncio.run(scenario())


def test_a_bug_with_state_runs_nothing_again():
    async def scenario():
        async with World(stateful=True, crash_at={1}) as world:
            for offset in range(3):
                await world.pipeline.put(incoming(offset))
            await until(lambda: world.crashed)
            await until(lambda: len(world.batches) == 3)
            assert world.batches == [[0], [1], [2]]  # in a process, the second one would have ended it

    asyncio.run(scenario())


def test_a_refused_output_does_not_acknowledge_the_others_of_its_record():
    async def scenario():
        async with World(outputs=lambda offset: 2) as world:
            world.hold.clear()
            await world.pipeline.put(incoming(0))
            await until(lambda: len(world.futures) == 2)
            world.futures[0].set_exception(MessageSizeTooLargeError())
            await asyncio.sleep(0.05)
            assert world.pipeline.committable() == {}
            world.futures[1].set_result(None)
            await until(lambda: world.pipeline.committable() == {("f", 0): 1})
            assert [offset for offset, _ in world.crashed] == [0]

    asyncio.run(scenario())
