"""A device that answers itself: it runs the fleet's bundle, publishes answers with receipts, and keeps its windows.

    publish -> answer, as a worker would -> outbox (answers, chosen windows) -> Kafka
                                         -> ring on disk (all windows, the oldest make room)

Needs onnxruntime and numpy, `acclimate[edge]`: no torch, Faust or MLflow. It works without a broker for as long as the
outbox has room, and every window that is lost on the way is counted in `.status`
(`acclimate.streams.wire.messages.EdgeCounts`).
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from kafka.errors import KafkaError

from acclimate.adaptation.engine.engine import Outputs
from acclimate.adaptation.errors import DataError
from acclimate.infra.settings import Settings
from acclimate.registry.bundles.source_bundle import read_bundle
from acclimate.streams.device.client import (
    Windows,
    as_times,
    as_windows,
    check_traceparent,
    feature_batches,
    own_session,
)
from acclimate.streams.device.edge_store import EdgeStore
from acclimate.streams.device.outbox import DeliveryReport, OutboxFull, OutboxRecord
from acclimate.streams.device.outbox_producer import reach_broker
from acclimate.streams.device.sampling import Sampling
from acclimate.streams.device.uploads import Chosen, UploadRule, choose
from acclimate.streams.device.window_requests import RequestReader
from acclimate.streams.releases.receiver import Receiver
from acclimate.streams.serving.prediction import prediction
from acclimate.streams.serving.served import InForce, Served, in_force_of, rungs, serve
from acclimate.streams.wire.codec import FeatureBatch, check_device
from acclimate.streams.wire.messages import DeviceStatus, Receipt
from acclimate.streams.wire.records import cloud_event
from acclimate.streams.wire.sampling_rate import check_model_rate, check_session_rate
from acclimate.streams.wire.topics import topic_name

__all__ = ["Answers", "EdgeClient", "Published", "UploadRule"]

STATUS_S = 60.0
_TICK_S = 0.8
_RETRY_S = 10.0
_STOP_S = 10.0
_LATE_WINDOWS = 64  # answered at a time, so that `publish` waits for no more

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answers:
    """What a bundle says of n windows.

    Attributes:
        labels: Index of the class, (n,).
        probabilities: The probabilities of whoever answered, (n, classes).
        answered_by: The rung that answered, ``source`` or ``leantta`` today, n of them.
        magnitude: Shift, (n,); above 1 lies one in a hundred windows of the source.
        class_names: One per class.
        receipt: Who answered, as the predictions name it.
    """

    labels: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]
    answered_by: Sequence[str]
    magnitude: npt.NDArray[np.float32]
    class_names: Sequence[str]
    receipt: Receipt


class Published(NamedTuple):
    """What became of one call of `EdgeClient.publish`.

    Attributes:
        event_ids: One per window; labels that come later carry these.
        answers: None where there is no bundle yet; the windows wait in the ring for one.
        on_its_way: The answers are safe on disk. False without answers, and where the outbox is full: they are counted
            as dropped.
    """

    event_ids: list[str]
    answers: Answers | None
    on_its_way: bool


class EdgeClient:
    """Answer and publish the windows of one device.

    Args:
        device: Device id, 1 to 64 of the characters `A-Za-z0-9._-`.
        settings: Broker, fleet, limits, and where releases are believed and kept (`trust`, `state`); with a `bundle`
            it serves that in `mode` and follows no releases. The outbox is `settings.outbox`, or
            `.acclimate/outbox-FLEET-DEVICE.sqlite`.
        uploads: Which windows are uploaded.
        ring: File of the last windows; `.acclimate/ring-FLEET-DEVICE.bin` when not given.
        ring_bytes: Its size.
        session: 16 hexadecimal digits, never used before for this device; random when not given.
        clock: Returns seconds since 1970: event time of windows published without one, and time of the budget.
        on_delivery: See `Outbox`; called for answers and uploaded windows.
        sampling_rate_hz, step_samples: See `DeviceClient`.

    Raises:
        DataError: The device id, the session or the sampling is not valid.
        ConfigError: Outbox or ring cannot be used, or nothing says whom to believe about releases.
        ContractError: The bundle given is damaged, or fails its self-test on this machine.
    """

    def __init__(
        self,
        device: str,
        settings: Settings,
        *,
        uploads: UploadRule | None = None,
        ring: Path | None = None,
        ring_bytes: int = 64 * 2**20,
        session: str | None = None,
        clock: Callable[[], float] = time.time,
        on_delivery: Callable[[DeliveryReport], None] | None = None,
        sampling_rate_hz: float | None = None,
        step_samples: int | None = None,
    ) -> None:
        self.device = check_device(device)
        self.session = own_session(session)
        self._sampling = Sampling(sampling_rate_hz, step_samples)
        self._session_hz: float | None = None
        self._settings = settings
        self._rule = uploads or UploadRule()
        self._clock = clock
        self._on_delivery = on_delivery
        self._seq = 0
        self._answered_in_epoch = 0
        self._last_error: str | None = None
        self._changed = threading.Event()
        self._stop = threading.Event()
        self._status_waits = False
        self._told_s = float("-inf")
        self._receiver: Receiver[InForce] | None = None
        self._in_force: InForce | None
        # Before any file is opened: what is wrong here is said at once.
        if settings.bundle is not None:
            self._in_force = InForce(serve(read_bundle(settings.bundle), settings.mode))
        else:
            self._receiver = Receiver(settings, ("source",), in_force_of, now_ms=self._now_ms)
            self._in_force = self._receiver.resume()
        self._store = EdgeStore(
            device,
            settings,
            self._rule,
            ring=ring or Path(".acclimate") / f"ring-{settings.fleet}-{device}.bin",
            ring_bytes=ring_bytes,
            now_ms=self._now_ms,
            on_delivery=self._delivered,
            on_change=self._changed.set,
        )
        self.outbox = self._store.outbox
        self._requests = RequestReader(settings, device)
        self._requests_at_s = float("-inf")
        loops = {"beside": self._beside} | ({"releases": self._follow} if self._receiver else {})
        self._threads = [
            threading.Thread(target=self._keep_on, args=(loop,), name=f"edge-{kind}", daemon=True)
            for kind, loop in loops.items()
        ]
        for thread in self._threads:
            thread.start()

    @property
    def next_seq(self) -> int:
        """Return the number that the next window gets."""
        return self._seq

    def publish(
        self,
        windows: Windows,
        event_times_ms: int | Sequence[int] | None = None,
        *,
        traceparent: str | None = None,
    ) -> Published:
        """Answer windows, store the answers for sending and keep the windows.

        Args:
            windows: (n, channels, length), or (channels, length) for one window; see `DeviceClient.publish`.
            event_times_ms: One time per window in milliseconds since 1970 by the device's clock; one number is meant
                for all; now when not given.
            traceparent: W3C trace context to send along.

        Raises:
            DataError: Windows or times are wrong, or of another shape or sampling rate than the bundle's; or the rate
                is another one than earlier in this session. Nothing was stored.
        """
        check_traceparent(traceparent)
        array = as_windows(windows)
        times: Any = event_times_ms if event_times_ms is not None else self._now_ms()
        times = as_times(times, len(array))
        with self.outbox.publishing:
            rate_hz, step = self._sampling.rate_of(times), self._sampling.step_samples
            check_session_rate(rate_hz, self._session_hz)
            batch = FeatureBatch(self.device, self.session, self._seq, times, array, rate_hz, step)
            in_force = self._in_force
            if in_force is None:
                self._use_up(batch)
                self._store.keep_unanswered(batch)
                return Published(batch.event_ids(), None, False)
            served = in_force.served(self.device)
            check_model_rate(rate_hz, served.sampling_rate_hz)
            outputs = served.engine.run(array)
            predictions = self._predictions(batch, served, outputs, traceparent)
            chosen = self._choose(batch, outputs)
            self._use_up(batch)  # whatever happens from here on
            stored = self._store.store(batch, outputs.magnitude, predictions, chosen)
            self._answered_in_epoch += len(array)
        return Published(batch.event_ids(), _answers(served, outputs), stored)

    def status(self) -> DeviceStatus:
        """Return what the device says of itself in `.status`."""
        with self.outbox.publishing:
            report = self._receiver.report if self._receiver is not None else None
            store, stats = self._store, self.outbox.stats()
            in_force = self._in_force
            return DeviceStatus(
                schema_version=1,
                session=self.session,
                receipt=in_force.served(self.device).receipt if in_force else None,
                answered_in_epoch=self._answered_in_epoch,
                since_device_ms=report.installed_ms if report else None,
                refusals=dict(report.refusals) if report else {},
                last_refusal=report.last_refusal[:1000] if report and report.last_refusal else None,
                refused_epoch=report.refused_epoch if report else 0,
                stale=report.stale if report else False,
                counts=store.memo.counts,
                ring_windows=store.ring.windows,
                unanswered=store.ring.unanswered,
                ring_error=store.ring_error,
                last_error=self._last_error,
                outbox_records=stats.waiting_records,
                outbox_bytes=stats.waiting_bytes,
                refused_records=stats.refused,
                requests_waiting=len(store.memo.wanted),
            )

    def flush(self, timeout_s: float | None = None) -> int:
        """Wait until everything was delivered or refused; return how many records of the outbox still wait."""
        return self.outbox.flush(timeout_s)

    def close(self, timeout_s: float = 10.0) -> None:
        """Stop, and close the outbox, see `Outbox.close`."""
        if self._stop.is_set():
            return
        self._stop.set()
        for thread in self._threads:
            thread.join(_STOP_S)
        try:
            if self._changed.is_set():
                self._tell()
            self._store.close(timeout_s)
        finally:
            self._requests.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(10.0 if kind is None else 0.0)

    def _use_up(self, batch: FeatureBatch) -> None:
        """Count the numbers of a batch as used, and its rate as that of the session where it is the first."""
        self._seq += len(batch.windows)
        self._session_hz = self._session_hz or batch.sampling_rate_hz

    def _predictions(
        self, batch: FeatureBatch, served: Served, outputs: Outputs, traceparent: str | None
    ) -> list[OutboxRecord]:
        source = f"/{self._settings.fleet}/devices/{self.device}"
        topic = topic_name(self._settings.fleet, "predictions")
        trace = (("traceparent", traceparent.encode()),) if traceparent is not None else ()
        records = []
        # As a record of .features would be cut, so that a worker's answer to it has the same id and bytes.
        for part in feature_batches(batch, self._settings.record_bytes_max):
            identity, value = prediction(part, served, outputs, part.seq - batch.seq)
            headers = (*cloud_event("predictions.v2", source, identity), *trace)
            records.append(OutboxRecord(self.device.encode(), value, headers, topic))
        return records

    def _choose(self, batch: FeatureBatch, outputs: Outputs) -> Chosen:
        limit = self._settings.record_bytes_max
        return choose(self._rule, self._settings.fleet, batch, outputs.magnitude, self._store.budget(), limit)

    def _keep_on(self, loop: Callable[[], None]) -> None:
        """Run a loop until the end; an unexpected error is said and does not stop the device from answering."""
        while not self._stop.is_set():
            try:
                loop()
            except Exception as error:
                log.exception("event=edge_error device=%s", self.device)
                self._last_error = repr(error)[:1000]
                self._changed.set()
                self._stop.wait(_RETRY_S)

    def _follow(self) -> None:
        try:
            reach_broker(self._settings.bootstrap.split(","))
        except OSError:  # a consumer would try for longer than `close` may take
            self._stop.wait(_TICK_S)
            return
        if self._receiver is not None:
            self._receiver.follow(self._stop, self._swap, self._changed.set)

    def _swap(self, new: InForce) -> None:
        with self.outbox.publishing:  # between two calls of publish
            old, self._in_force = self._in_force, new
            if old is None or old.served(self.device).receipt != new.served(self.device).receipt:
                self._answered_in_epoch = 0
        self._changed.set()

    def _beside(self) -> None:
        while not self._stop.wait(_TICK_S):
            self._read_requests()
            while self._store.serve_request() or self._answer_late():
                if self._stop.is_set():
                    return
            if self._changed.is_set() or time.monotonic() - self._told_s >= STATUS_S:
                self._tell()

    def _read_requests(self) -> None:
        if time.monotonic() < self._requests_at_s:
            return
        try:
            found, place = self._requests.read(self._store.memo.place)
        except (KafkaError, OSError) as error:
            log.info("event=requests_unreachable device=%s error=%r", self.device, error)
            self._requests.close()
            self._requests_at_s = time.monotonic() + _RETRY_S
            return
        if not self._store.want(found, place):
            self._requests.close()  # they are read again

    def _answer_late(self) -> bool:
        """Answer some of the windows that came before any bundle; say whether anything was done."""
        with self.outbox.publishing:
            in_force = self._in_force
            late = self._store.oldest_unanswered(_LATE_WINDOWS) if in_force is not None else None
            if in_force is None or late is None:
                return False
            served = in_force.served(self.device)
            slots, batch = late
            try:
                check_model_rate(batch.sampling_rate_hz, served.sampling_rate_hz)
                outputs = served.engine.run(batch.windows)
            except DataError as error:  # of another rate or shape than the bundle's
                return self._store.give_up(slots, str(error))
            chosen = self._choose(batch, outputs)
            predictions = self._predictions(batch, served, outputs, None)
            if not self._store.store_late(slots, outputs.magnitude, predictions, chosen):
                return False
            self._answered_in_epoch += len(slots)
            return True

    def _tell(self) -> None:
        """Say in `.status` what runs; one such record waits at most, however long the broker is away."""
        if self._status_waits:
            return
        self._changed.clear()
        topic = topic_name(self._settings.fleet, "status")
        value = self.status().model_dump_json().encode()
        self._status_waits = True
        try:
            self.outbox.put([OutboxRecord(f"device/{self.device}".encode(), value, (), topic)])
        except OutboxFull:  # said when there is room
            self._status_waits = False
            self._changed.set()
        self._told_s = time.monotonic()

    def _delivered(self, report: DeliveryReport) -> None:
        """Run in the outbox's sending thread."""
        if report.topic == topic_name(self._settings.fleet, "status"):
            self._status_waits = False
        elif self._on_delivery is not None:
            self._on_delivery(report)

    def _now_ms(self) -> int:
        return round(self._clock() * 1000)


def _answers(served: Served, outputs: Outputs) -> Answers:
    probabilities = served.probabilities(outputs)
    return Answers(
        labels=probabilities.argmax(axis=1),
        probabilities=probabilities,
        answered_by=rungs(served.adapts(outputs.magnitude)),
        magnitude=outputs.magnitude,
        class_names=served.class_names,
        receipt=served.receipt,
    )
