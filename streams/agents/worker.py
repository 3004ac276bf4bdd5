"""The adapt worker: a Faust agent on ``.features``.

Faust joins the group, reads and rebalances; :mod:`streams.agents.pipeline` decides what is acknowledged. Ends with code
0 after SIGTERM or SIGINT, 70 after a bug at one record, 75 after a stall or an outage that outlasted the producer.
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
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import faust
from aiokafka import AIOKafkaProducer

from infra.settings import Settings
from streams.agents import adapt
from streams.agents.crashes import crash_record, read_crashes, worker_record
from streams.agents.pipeline import Partition, Pipeline
from streams.agents.watchdog import EXIT_STALLED, Watchdog
from streams.releases.receiver import Receiver
from streams.serving.served import InForce
from streams.wire.connect import aiokafka_options, faust_broker, faust_credentials
from streams.wire.messages import CrashMark, WorkerStatus
from streams.wire.records import Incoming, Outgoing, header
from streams.wire.topics import topic_name

__all__ = ["CRASHES_MAX", "EXIT_BUG", "group_name", "run_worker"]

EXIT_BUG = 70  # EX_SOFTWARE
CRASHES_MAX = 3
COMMIT_INTERVAL_S = 1.0
REFUSED_LOG_S = 10.0
STOP_S = 9.5  # a SIGTERM may take 10 s
DRAIN_S = 6.5
OUTPUT_BYTES_MAX = 8_388_608

log = logging.getLogger(__name__)


def group_name(fleet: str) -> str:
    """Return the consumer group of a fleet's adapt workers.

    >>> group_name("acclimate")
    'acclimate.adapt'
    """
    return f"{fleet}.adapt"


async def run_worker(settings: Settings, in_force: InForce | None, receiver: Receiver[InForce] | None = None) -> int:
    """Adapt until told to stop; return the exit code.

    Several workers share the partitions of the fleet. Topics must exist.

    Args:
        settings: Broker, fleet and limits.
        in_force: Who answers at first; None waits for a release.
        receiver: Brings what is newly in force; without one it stays as it is.
    """
    stop = _stop_signal()
    if receiver is not None:
        in_force = await _first_in_force(receiver, in_force, stop)
    if in_force is None:
        return 0  # stopped while waiting
    # Replaced in one step, between two batches: a batch is answered by what was in force when it began.
    core = adapt.AdaptCore(settings.fleet, in_force, settings.record_bytes_max)
    producer = AIOKafkaProducer(
        **aiokafka_options(settings),
        acks="all",
        enable_idempotence=True,
        linger_ms=2,
        max_batch_size=262_144,
        max_request_size=OUTPUT_BYTES_MAX,
        # The producer retries for so long; the watchdog ends an outage earlier.
        request_timeout_ms=int(max(40.0, 2 * settings.watchdog_s) * 1000),
    )

    refused = _Refused()

    async def send(record: Outgoing) -> asyncio.Future[object]:
        if record.topic.endswith(".dlq"):
            refused.note(record)
        sent: asyncio.Future[object] = await producer.send(
            record.topic, key=record.key, value=record.value, headers=list(record.headers)
        )
        return sent

    async def on_crash(crash: adapt.Crash) -> None:
        record = crash.record
        place = (record.topic, record.partition)
        # Read anew: the last worker to crash here may have been another one.
        known = (await asyncio.to_thread(read_crashes, settings)).get(place)
        count = known.count + 1 if known is not None and known.offset == record.offset else 1
        log.critical(
            "event=crash topic=%s partition=%d offset=%d count=%d", *place, record.offset, count, exc_info=crash.error
        )
        if count >= CRASHES_MAX:
            await (await send(core.park(crash)))
            await (await send(crash_record(settings.fleet, place, None)))
            log.critical("event=parked topic=%s partition=%d offset=%d alarm=1", *place, record.offset)
            return
        remembered = CrashMark(schema_version=1, offset=record.offset, count=count, error=repr(crash.error)[:1000])
        await (await send(crash_record(settings.fleet, place, remembered)))
        await commit()
        folder.cleanup()
        logging.shutdown()
        os._exit(EXIT_BUG)

    pipeline = Pipeline(lambda records: core.process(records), send, on_crash, settings.in_flight_max)
    folder = tempfile.TemporaryDirectory(prefix="acclimate-worker-")
    app = _faust_app(settings, folder.name)
    features = app.topic(topic_name(settings.fleet, "features"), acks=False, key_type=bytes, value_type=bytes)

    @app.agent(features, concurrency=1, name="adapt")
    async def read(stream: Any) -> None:  # faust.StreamT does not declare noack()
        async for event in stream.noack().events():
            await pipeline.put(_incoming(event.message))

    async def commit() -> None:
        owned = app.consumer.assignment()
        offsets = pipeline.committable()
        mine = {tp: offset for tp in owned if (offset := offsets.get((tp.topic, tp.partition))) is not None}
        # the public commit() only knows Faust's own acknowledgements
        if mine and await app.consumer._commit(mine):  # type: ignore[attr-defined]
            pipeline.committed({(tp.topic, tp.partition): offset for tp, offset in mine.items()})

    @app.on_partitions_revoked.connect(weak=False)
    async def revoked(sender: object, revoked: object, **_: object) -> None:
        try:
            async with asyncio.timeout(settings.session_timeout_s / 2):
                await pipeline.settle()
                await commit()
        except TimeoutError:
            log.warning("event=revoked_with_records_in_flight")  # they will be read, and answered equally, again
        finally:
            pipeline.reopen()

    async def commit_loop() -> None:
        while True:
            await asyncio.sleep(COMMIT_INTERVAL_S)
            if app.crashed:  # Faust notes an exception and stops reading; nobody else would notice
                raise RuntimeError("Faust crashed, see the log above") from app._crash_reason
            await commit()
            refused.log_every(REFUSED_LOG_S, time.monotonic())

    def assigned() -> set[Partition]:
        # started: before that the consumer does not exist
        return {(tp.topic, tp.partition) for tp in app.consumer.assignment()} if app.started else set()

    watchdog = Watchdog(settings, app.conf.id, features.get_topic_name(), assigned)
    worker = f"{socket.gethostname()}-{os.getpid()}"
    running: list[asyncio.Task[None]] = []
    loop, followed = asyncio.get_running_loop(), threading.Event()

    async def tell() -> None:
        await (await send(worker_record(settings.fleet, worker, _status(core.in_force, receiver))))

    def tell_soon() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            asyncio.run_coroutine_threadsafe(tell(), loop)

    def swap(new: InForce) -> None:
        nonlocal core
        core = replace(core, in_force=new)
        tell_soon()

    try:
        async with asyncio.timeout(settings.watchdog_s):
            await producer.start()
            await app.start()
        running = [asyncio.create_task(pipeline.run()), asyncio.create_task(commit_loop())]
        watchdog.start()
        await tell()
        receipt = core.in_force.stable.receipt
        log.info(
            "event=ready worker=%s epoch=%d bundle=%s mode=%s", worker, receipt.epoch, receipt.bundle, receipt.mode
        )
        if receiver is not None:
            threading.Thread(
                target=receiver.follow, args=(followed, swap, tell_soon), name="releases", daemon=True
            ).start()
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([stopped, *running], return_when=asyncio.FIRST_COMPLETED)
        for task in running:
            if task.done():
                log.critical("event=pipeline_failed exit=%d", EXIT_STALLED, exc_info=task.exception())
                return EXIT_STALLED
        log.info("event=stopping")
        followed.set()
        _exit_within(STOP_S)
        async with asyncio.timeout(DRAIN_S):
            await pipeline.settle()
            await commit()
            await (await send(worker_record(settings.fleet, worker, None)))
    except TimeoutError:
        if not running:
            log.critical("event=not_ready waited_s=%.0f exit=%d", settings.watchdog_s, EXIT_STALLED)
            return EXIT_STALLED
        log.warning("event=stopped_with_records_in_flight")  # they will be read, and answered equally, again
    finally:
        followed.set()
        watchdog.stop()
        for task in running:
            task.cancel()
        await asyncio.wait([asyncio.create_task(app.stop()), asyncio.create_task(producer.stop())], timeout=2.5)
        folder.cleanup()
    log.info("event=stopped")
    return 0


async def _first_in_force(receiver: Receiver[InForce], kept: InForce | None, stop: asyncio.Event) -> InForce | None:
    """Read the releases to their end; return the newest good one, wait for one where there is none."""
    found = await asyncio.to_thread(receiver.catch_up) or kept
    if found is None:
        log.warning("event=waiting_for_a_release see=`acclimate promote`")
    while found is None and not stop.is_set():
        found = await asyncio.to_thread(receiver.poll)
    return found


def _status(in_force: InForce, receiver: Receiver[InForce] | None) -> WorkerStatus:
    report = receiver.report if receiver is not None else None
    return WorkerStatus(
        schema_version=1,
        receipt=in_force.stable.receipt,
        candidate=in_force.candidate.receipt if in_force.candidate else None,
        since_ms=report.installed_ms if report else None,
        refusals=dict(report.refusals) if report else {},
        last_refusal=report.last_refusal[:1000] if report and report.last_refusal else None,
        refused_epoch=report.refused_epoch if report else 0,
        stale=report.stale if report else False,
    )


class _Refused:
    """Count dead letters and say so now and then: each one is in the topic, a flood must not fill the log."""

    def __init__(self) -> None:
        self.count = 0
        self.last: Outgoing | None = None
        self.logged_s = float("-inf")

    def note(self, letter: Outgoing) -> None:
        self.count += 1
        self.last = letter

    def log_every(self, interval_s: float, now_s: float) -> None:
        if self.last is None or now_s - self.logged_s < interval_s:
            return
        message = header(self.last.headers, "__connect.errors.exception.message") or b""
        log.warning(
            "event=refused records=%d last_key=%r last_reason=%r see=`acclimate dlq list`",
            self.count,
            (self.last.key or b"")[:64],
            message.decode("utf-8", "replace")[:200],
        )
        self.count, self.last, self.logged_s = 0, None, now_s


def _faust_app(settings: Settings, datadir: str) -> faust.App:
    return faust.App(
        group_name(settings.fleet),
        broker=faust_broker(settings),
        broker_credentials=faust_credentials(settings),
        version=1,
        autodiscover=False,
        datadir=datadir,  # made by Faust even without tables
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        key_serializer="raw",
        value_serializer="raw",
        processing_guarantee="at_least_once",
        stream_buffer_maxsize=16,  # the pipeline bounds what is under way, also by bytes
        stream_wait_empty=False,
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.session_timeout_s / 4,
        broker_request_timeout=max(40.0, settings.session_timeout_s),
        broker_commit_interval=COMMIT_INTERVAL_S,
        consumer_auto_offset_reset="earliest",
    )


def _incoming(message: faust.types.Message) -> Incoming:
    headers = message.headers or ()
    return Incoming(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        timestamp_ms=round(message.timestamp * 1000),
        key=message.key,
        value=message.value,
        headers=tuple(headers.items() if isinstance(headers, Mapping) else headers),
    )


def _exit_within(limit_s: float) -> None:
    """End the process even if a batch, the broker or Faust does not let go; unacknowledged records are read again."""
    timer = threading.Timer(limit_s, os._exit, (EXIT_STALLED,))
    timer.daemon = True
    timer.start()


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
