"""The adapt worker: an agent without state that answers ``.features`` with what is in force."""

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from acclimate.infra.settings import Settings
from acclimate.streams.agents.adapt import AdaptCore
from acclimate.streams.agents.crashes import worker_record
from acclimate.streams.agents.host import Agent, run_agent, stop_signal
from acclimate.streams.releases.receiver import Receiver
from acclimate.streams.serving.served import InForce
from acclimate.streams.wire.messages import WorkerStatus
from acclimate.streams.wire.records import Outgoing

__all__ = ["run_worker"]

log = logging.getLogger(__name__)


async def run_worker(settings: Settings, in_force: InForce | None, receiver: Receiver[InForce] | None = None) -> int:
    """Adapt until told to stop; return the exit code.

    Several workers share the partitions of the fleet. Topics must exist.

    Args:
        settings: Broker, fleet and limits.
        in_force: Who answers at first; None waits for a release.
        receiver: Brings what is newly in force; without one it stays as it is.
    """
    stop = stop_signal()
    if receiver is not None:
        in_force = await _first_in_force(receiver, in_force, stop)
    if in_force is None:
        return 0  # stopped while waiting
    # Replaced in one step, between two batches: a batch is answered by what was in force when it began.
    core = AdaptCore(settings.fleet, in_force, settings.record_bytes_max)
    receipt = in_force.stable.receipt
    log.info("event=in_force epoch=%d bundle=%s mode=%s", receipt.epoch, receipt.bundle, receipt.mode)

    def status(worker: str, running: bool) -> Outgoing:
        return worker_record(settings.fleet, worker, _status(core.in_force, receiver) if running else None)

    def follow(receiver: Receiver[InForce], ended: threading.Event, tell: Callable[[], None]) -> None:
        def swap(new: InForce) -> None:
            nonlocal core
            core = replace(core, in_force=new)
            tell()

        receiver.follow(ended, swap, tell)

    agent = Agent(
        name="adapt",
        topic="features",
        process=lambda records: core.process(records),
        park=lambda record, exception: core.park(record, exception),
        status=status,
        follow=partial(follow, receiver) if receiver is not None else None,
    )
    return await run_agent(settings, agent, stop)


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
