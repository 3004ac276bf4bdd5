"""What every agent needs: a Faust consumer, ordered acknowledgement, checkpoints, watchdog, crash rule, exit codes.

An agent reads one topic and computes outputs; `run_agent` does everything else. Faust joins the group, reads and
rebalances; :mod:`acclimate.streams.agents.pipeline` decides what is acknowledged. Records of newly assigned partitions
flow while Faust's own handlers still run, so the host holds them until their state is restored; partitions that stay
keep theirs.

The process ends with code 0 after SIGTERM or SIGINT, 70 after a bug at one record, 75 after a stall or an outage that
outlasted the producer.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import faust
from aiokafka import AIOKafkaProducer

from acclimate.infra.settings import Settings
from acclimate.streams.agents.crashes import crash_record, read_crashes
from acclimate.streams.agents.faust_app import COMMIT_INTERVAL_S, incoming, make_faust_app
from acclimate.streams.agents.pipeline import Crash, Partition, Pipeline, Process
from acclimate.streams.agents.refused import Refused
from acclimate.streams.agents.state import Restorer, State
from acclimate.streams.agents.watchdog import EXIT_STALLED, Watchdog
from acclimate.streams.wire.connect import aiokafka_options
from acclimate.streams.wire.messages import CrashMark
from acclimate.streams.wire.records import Incoming, Outgoing
from acclimate.streams.wire.topics import topic_name

__all__ = ["CRASHES_MAX", "EXIT_BUG", "Agent", "group_name", "run_agent", "stop_signal"]

EXIT_BUG = 70  # EX_SOFTWARE
CRASHES_MAX = 3
CHECKPOINT_INTERVAL_S = 5.0
REFUSED_LOG_S = 10.0
STOP_S = 9.5  # a SIGTERM may take 10 s
DRAIN_S = 6.5
OUTPUT_BYTES_MAX = 8_388_608

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Agent:
    """What the host runs.

    Attributes:
        name: What the agent does; its consumer group is ``FLEET.NAME``.
        topic: What it reads, without the fleet's prefix.
        process: Returns the outputs of each record, any number of them, also none. With state it gets one record at a
            time, in the order of its partition; without, a batch, which runs again record by record where it raises.
        park: Returns the dead letter of a record that crashed the process too often; takes the exception's name.
        state: None where an output depends on its own record alone.
        status: Returns what to tell of a process, by its name, or with False that it has stopped.
        follow: Runs beside the agent in a thread of its own, until the event is set; whenever it calls the function,
            the status is told again.
    """

    name: str
    topic: str
    process: Process
    park: Callable[[Incoming, str], Outgoing]
    state: State | None = None
    status: Callable[[str, bool], Outgoing] | None = None
    follow: Callable[[threading.Event, Callable[[], None]], None] | None = None


def group_name(fleet: str, agent: str) -> str:
    """Return the consumer group of an agent.

    >>> group_name("acclimate", "adapt")
    'acclimate.adapt'
    """
    return f"{fleet}.{agent}"


def stop_signal() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def run_agent(settings: Settings, agent: Agent, stop: asyncio.Event) -> int:
    """Run an agent until `stop`; return the exit code. Several processes share the partitions. Topics must exist."""
    return await _Host(settings, agent).run(stop)


class _Host:
    def __init__(self, settings: Settings, agent: Agent) -> None:
        self._settings = settings
        self._agent = agent
        self._worker = f"{socket.gethostname()}-{os.getpid()}"
        self._producer = AIOKafkaProducer(
            **aiokafka_options(settings),
            acks="all",
            enable_idempotence=True,
            linger_ms=2,
            max_batch_size=262_144,
            max_request_size=OUTPUT_BYTES_MAX,
            # The producer retries for so long; the watchdog ends an outage earlier.
            request_timeout_ms=int(max(40.0, 2 * settings.watchdog_s) * 1000),
        )
        state = agent.state
        snapshot = None if state is None else state.snapshot
        self._pipeline = Pipeline(self._process, self._send, self._on_crash, settings.in_flight_max, snapshot)
        self._folder = tempfile.TemporaryDirectory(prefix="acclimate-worker-")
        self._app = make_faust_app(settings, group_name(settings.fleet, agent.name), self._folder.name)
        self._topic = topic_name(settings.fleet, agent.topic)
        self._watchdog = Watchdog(settings, self._app.conf.id, self._topic, self._assigned)
        self._assignments: asyncio.Queue[tuple[int, Set[Partition]]] = asyncio.Queue()
        self._restorer = None if state is None else Restorer(settings, self._app.conf.id, state)
        self._marks: Mapping[Partition, CrashMark] = {}
        self._refused = Refused()
        self._ended = threading.Event()
        self._loop = asyncio.get_running_loop()

    async def run(self, stop: asyncio.Event) -> int:
        settings, app, pipeline = self._settings, self._app, self._pipeline
        channel = app.topic(self._topic, acks=False, key_type=bytes, value_type=bytes)

        @app.agent(channel, concurrency=1, name=self._agent.name)
        async def read(stream: Any) -> None:  # faust.StreamT does not declare noack()
            async for event in stream.noack().events():
                await pipeline.put(incoming(event.message))

        @app.on_partitions_revoked.connect(weak=False)
        async def revoked(sender: object, revoked: object, **_: object) -> None:
            await self._settle()

        @app.on_partitions_assigned.connect(weak=False)
        async def assigned(sender: object, assigned: Set[faust.types.TP], **_: object) -> None:
            places = {(tp.topic, tp.partition) for tp in assigned}
            self._assignments.put_nowait((pipeline.generation, places))

        running: list[asyncio.Task[None]] = []
        try:
            async with asyncio.timeout(settings.watchdog_s):
                await self._producer.start()
                await app.start()
            running = [
                asyncio.create_task(each) for each in (pipeline.run(), self._commit_loop(), self._restore_loop())
            ]
            self._watchdog.start()
            await self._tell()
            log.info("event=ready agent=%s worker=%s", self._agent.name, self._worker)
            if self._agent.follow is not None:
                follow = threading.Thread(
                    target=self._agent.follow, args=(self._ended, self._tell_soon), name="follow", daemon=True
                )
                follow.start()
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait([stopped, *running], return_when=asyncio.FIRST_COMPLETED)
            for task in running:
                if task.done():
                    log.critical("event=pipeline_failed exit=%d", EXIT_STALLED, exc_info=task.exception())
                    return EXIT_STALLED
            log.info("event=stopping")
            self._ended.set()
            _exit_within(STOP_S)
            async with asyncio.timeout(DRAIN_S):
                await pipeline.settle()
                await self._commit()
                await self._tell(running=False)
        except TimeoutError:
            if not running:
                log.critical("event=not_ready waited_s=%.0f exit=%d", settings.watchdog_s, EXIT_STALLED)
                return EXIT_STALLED
            log.warning("event=stopped_with_records_in_flight")  # they will be read, and answered equally, again
        finally:
            self._ended.set()
            self._watchdog.stop()
            for task in running:
                task.cancel()
            await asyncio.wait(
                [asyncio.create_task(app.stop()), asyncio.create_task(self._producer.stop())], timeout=2.5
            )
            self._folder.cleanup()
        log.info("event=stopped")
        return 0

    def _process(self, records: Sequence[Incoming]) -> Sequence[Sequence[Outgoing]]:
        if self._agent.state is None:
            return self._agent.process(records)
        (record,) = records
        parked = self._parked(record)
        return [parked] if parked else self._agent.process(records)

    def _parked(self, record: Incoming) -> Sequence[Outgoing]:
        """Return the dead letter of a record that has crashed the process too often.

        Without state it is parked when it crashes for the last time. With state it is when it is met again, by a new
        process: in the old one the state may be half changed.
        """
        mark = self._marks.get((record.topic, record.partition))
        if mark is None or mark.offset != record.offset or mark.count < CRASHES_MAX:
            return ()
        return self._park(record, mark.error.partition("(")[0])

    def _park(self, record: Incoming, exception: str) -> Sequence[Outgoing]:
        place = (record.topic, record.partition)
        log.critical("event=parked topic=%s partition=%d offset=%d alarm=1", *place, record.offset)
        return self._agent.park(record, exception), crash_record(self._settings.fleet, self._agent.name, place, None)

    async def _send(self, record: Outgoing) -> asyncio.Future[object]:
        if record.topic.endswith(".dlq"):
            self._refused.note(record)
        sent: asyncio.Future[object] = await self._producer.send(
            record.topic, key=record.key, value=record.value, headers=list(record.headers)
        )
        return sent

    async def _on_crash(self, crash: Crash) -> None:
        record, fleet = crash.record, self._settings.fleet
        place = (record.topic, record.partition)
        # Read anew: the last process to crash here may have been another one.
        known = (await asyncio.to_thread(read_crashes, self._settings, self._agent.name)).get(place)
        count = known.count + 1 if known is not None and known.offset == record.offset else 1
        log.critical(
            "event=crash topic=%s partition=%d offset=%d count=%d", *place, record.offset, count, exc_info=crash.error
        )
        if count >= CRASHES_MAX and self._agent.state is None:
            for output in self._park(record, type(crash.error).__name__):
                await (await self._send(output))
            return
        mark = CrashMark(schema_version=1, offset=record.offset, count=count, error=repr(crash.error)[:1000])
        await (await self._send(crash_record(fleet, self._agent.name, place, mark)))
        await self._commit()
        self._folder.cleanup()
        logging.shutdown()
        os._exit(EXIT_BUG)

    async def _commit(self) -> None:
        owned = self._app.consumer.assignment()
        offsets = self._pipeline.committable()
        mine = {tp: offset for tp in owned if (offset := offsets.get((tp.topic, tp.partition))) is not None}
        # the public commit() only knows Faust's own acknowledgements
        if mine and await self._app.consumer._commit(mine):  # type: ignore[attr-defined]
            done = {(tp.topic, tp.partition): offset for tp, offset in mine.items()}
            self._pipeline.committed(done)
            if self._restorer is not None:
                self._restorer.committed(done)

    async def _commit_loop(self) -> None:
        kept = time.monotonic()
        while True:
            await asyncio.sleep(COMMIT_INTERVAL_S)
            if self._app.crashed:  # Faust notes an exception and stops reading; nobody else would notice
                raise RuntimeError("Faust crashed, see the log above") from self._app._crash_reason
            if time.monotonic() - kept >= CHECKPOINT_INTERVAL_S:
                self._pipeline.checkpoint()
                kept = time.monotonic()
            await self._commit()
            self._refused.log_every(REFUSED_LOG_S, time.monotonic())

    async def _settle(self) -> None:
        """Commit all that is under way before the partitions go; nothing may go on with them afterwards."""
        clean = False
        try:
            async with asyncio.timeout(self._settings.session_timeout_s / 2):
                await self._pipeline.settle()
                await self._commit()
                clean = not self._pipeline.committable()
        except TimeoutError:
            log.warning("event=revoked_with_records_in_flight")  # they will be read, and answered equally, again
        finally:
            if self._restorer is not None and not clean:
                self._restorer.distrust()
            self._pipeline.reopen()

    async def _restore_loop(self) -> None:
        while True:
            generation, places = await self._assignments.get()
            try:
                await self._pipeline.between(self._restore, generation, places)
            except _Outdated:
                continue  # a newer assignment follows, or the end
            self._pipeline.admit(generation, places)

    def _restore(self, generation: int, places: Set[Partition]) -> None:
        def check() -> None:
            if self._ended.is_set() or generation != self._pipeline.generation:
                raise _Outdated
            self._watchdog.touch()

        if self._restorer is not None:
            self._restorer.restore(places, check)
            self._marks = read_crashes(self._settings, self._agent.name)

    def _assigned(self) -> Set[Partition]:
        # started: before that the consumer does not exist
        return {(tp.topic, tp.partition) for tp in self._app.consumer.assignment()} if self._app.started else set()

    async def _tell(self, running: bool = True) -> None:
        if self._agent.status is not None:
            await (await self._send(self._agent.status(self._worker, running)))

    def _tell_soon(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            asyncio.run_coroutine_threadsafe(self._tell(), self._loop)


class _Outdated(Exception):
    """The partitions whose state is being restored were taken away, or the process stops."""


def _exit_within(limit_s: float) -> None:
    """End the process even if a batch, the broker or Faust does not let go; unacknowledged records are read again."""
    timer = threading.Timer(limit_s, os._exit, (EXIT_STALLED,))
    timer.daemon = True
    timer.start()
