"""What a device that answers itself has on disk: outbox, ring, and the memo that says how they stand to each other.

Methods that change anything are called with `outbox.publishing` held. What is lost on the way is counted, and nothing
else stops for it.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from acclimate.adaptation.errors import ConfigError
from acclimate.infra.settings import Settings
from acclimate.streams.device.client import features_fitting
from acclimate.streams.device.edge_memo import EdgeMemo, Wanted, read_memo
from acclimate.streams.device.outbox import (
    DeliveryReport,
    DiskFull,
    OutboxFull,
    OutboxRecord,
    open_outbox,
    record_bytes,
)
from acclimate.streams.device.ring import Replaced, WindowRing
from acclimate.streams.device.upload_budget import UploadBudget
from acclimate.streams.device.uploads import Chosen, UploadRule, upload_record
from acclimate.streams.device.window_requests import RequestPlace
from acclimate.streams.wire.codec import FeatureBatch
from acclimate.streams.wire.messages import WINDOWS_PER_RECORD_MAX, WindowRequest

__all__ = ["EdgeStore"]

_WANTED_MAX = 1_000
_PREDICTION_BYTES_MAX = 8_000_000  # .predictions takes a little more

log = logging.getLogger(__name__)


class EdgeStore:
    """Open outbox and ring of one device.

    Args:
        device: Device id.
        settings: Broker, fleet and limits.
        rule: Which windows are uploaded.
        ring: File of the last windows.
        ring_bytes: Its size.
        now_ms: Time of the budget.
        on_delivery: See `Outbox`.
        on_change: Called after what the device should say soon.

    Raises:
        ConfigError: Outbox or ring cannot be used.
    """

    def __init__(
        self,
        device: str,
        settings: Settings,
        rule: UploadRule,
        *,
        ring: Path,
        ring_bytes: int,
        now_ms: Callable[[], int],
        on_delivery: Callable[[DeliveryReport], None],
        on_change: Callable[[], None],
    ) -> None:
        self._device = device
        self._settings = settings
        self._now_ms = now_ms
        self._on_change = on_change
        self.ring_error: str | None = None
        self.outbox = open_outbox(device, settings, on_delivery=on_delivery, record_bytes_max=_PREDICTION_BYTES_MAX)
        try:
            self.memo = read_memo(self.outbox.memo(), rule.bytes_per_day, now_ms())
            self.ring = WindowRing(ring, f"{settings.fleet}/{device}", ring_bytes)
        except BaseException:
            self.outbox.close(0.0)
            raise

    def budget(self) -> UploadBudget:
        """Return what may be uploaded now."""
        return self.memo.budget.refilled(self._now_ms())

    def store(
        self, batch: FeatureBatch, magnitudes: npt.NDArray[np.float32], predictions: list[OutboxRecord], chosen: Chosen
    ) -> bool:
        """Keep windows and store answers and uploads; say whether the answers fit. First the uploads give way."""
        windows, uploads = len(batch.windows), int(chosen.uploaded.sum())
        self.memo = self.memo.plus(published=windows, over_budget=chosen.over_budget)
        self._keep(batch, magnitudes, chosen.uploaded)

        def both(memo: EdgeMemo) -> EdgeMemo:
            more = memo.plus(answered=windows, uploaded=uploads, uploaded_bytes=chosen.budget_bytes)
            return more.with_budget(chosen.budget)

        if self._put([*predictions, *chosen.records], both):
            return True
        self._not_uploaded(batch, uploads)
        if uploads and self._put(predictions, lambda memo: memo.plus(answered=windows)):
            return True
        self.memo = self.memo.plus(predictions_dropped=windows)
        self._put([], _same)
        return False

    def keep_unanswered(self, batch: FeatureBatch) -> None:
        """Keep windows for which there is no bundle yet."""
        self.memo = self.memo.plus(published=len(batch.windows))
        self._keep(batch, None, None)
        self._put([], _same)

    def oldest_unanswered(self, most: int) -> tuple[list[int], FeatureBatch] | None:
        """Return the oldest windows that wait for a bundle, and their slots in the ring; None where there are none."""
        while self.ring.unanswered:
            slots = self.ring.oldest_unanswered(most)
            kept = self.ring.read(slots)
            if kept is not None:
                return slots[: len(kept.windows)], FeatureBatch(self._device, *kept)
            if not self.give_up(slots[:1], "damaged in the ring"):
                return None
        return None

    def store_late(
        self,
        slots: Sequence[int],
        magnitudes: npt.NDArray[np.float32],
        predictions: list[OutboxRecord],
        chosen: Chosen,
    ) -> bool:
        """Store answers to windows that had waited in the ring; where they do not fit, they wait on."""
        count, uploads = len(slots), int(chosen.uploaded.sum())

        def answered(memo: EdgeMemo) -> EdgeMemo:
            late = memo.plus(answered=count, answered_late=count, over_budget=chosen.over_budget)
            return late.plus(uploaded=uploads, uploaded_bytes=chosen.budget_bytes).with_budget(chosen.budget)

        if not self._put([*predictions, *chosen.records], answered):
            return False
        self._on_ring(lambda: self.ring.mark_answered(slots, magnitudes))
        uploaded = [slot for slot, sent in zip(slots, chosen.uploaded, strict=True) if sent]
        self._on_ring(lambda: self.ring.mark_uploaded(uploaded, True))
        self._on_change()
        return True

    def give_up(self, slots: Sequence[int], reason: str) -> bool:
        """Count windows that cannot be answered any more; say whether that was stored."""
        log.error("event=unanswered_dropped device=%s windows=%d %s", self._device, len(slots), reason)
        self.memo = self.memo.plus(unanswered_dropped=len(slots))
        self._on_change()
        return self._on_ring(lambda: self.ring.mark_answered(slots, None)) and self._put([], _same)

    def want(self, requests: Sequence[WindowRequest], place: RequestPlace) -> bool:
        """Remember what is asked for, and where to read on; say whether that was stored."""
        with self.outbox.publishing:
            stands = {"requests_partition": place.partition, "requests_offset": place.offset}
            if not requests:
                self.memo = self.memo.model_copy(update=stands)  # stored with what comes next
                return True
            room = _WANTED_MAX - len(self.memo.wanted)
            wanted = [Wanted(session=each.session, first=each.first, last=each.last) for each in requests]
            lengths = [each.last - each.first + 1 for each in wanted]

            def more(memo: EdgeMemo) -> EdgeMemo:
                asked = memo.plus(asked=sum(lengths), missed=sum(lengths[room:]))
                return asked.model_copy(update={"wanted": (*memo.wanted, *wanted[:room]), **stands})

            return self._put([], more)

    def serve_request(self) -> bool:
        """Send what the oldest request asks for, one record at most; say whether anything was done."""
        with self.outbox.publishing:
            if not self.memo.wanted:
                return False
            wanted = self.memo.wanted[0]
            found = self.ring.find(wanted.session, wanted.first, wanted.last)
            if not found or found[0][0] > wanted.first:  # what comes before is not there
                return self._done(wanted, found[0][0] if found else wanted.last + 1)
            budget = self.budget()
            samples = self.ring.samples
            if not features_fitting(budget.bytes_at_once, samples):
                return self._done(wanted, wanted.last + 1)
            most = min(
                features_fitting(budget.left_bytes, samples),
                max(1, features_fitting(self._settings.record_bytes_max, samples)),
                WINDOWS_PER_RECORD_MAX,
            )
            slots = [slot for place, (seq, slot) in enumerate(found[:most]) if seq == wanted.first + place]
            if not slots:
                return False  # the budget must refill first
            kept = self.ring.read(slots)
            if kept is None:
                return self._done(wanted, wanted.first + 1)
            record = upload_record(self._settings.fleet, FeatureBatch(self._device, *kept), "asked")
            size, count = record_bytes(record), len(kept.windows)
            if not self._put(
                [record],
                lambda memo: (
                    _without(memo, wanted, wanted.first + count)
                    .plus(uploaded=count, uploaded_bytes=size)
                    .with_budget(budget.without(size))
                ),
            ):
                return False
            self._on_ring(lambda: self.ring.mark_uploaded(slots[:count], True))
            return True

    def close(self, timeout_s: float) -> None:
        """Close both, see `Outbox.close`."""
        try:
            self.outbox.close(timeout_s)
        finally:
            self.ring.close()

    def _not_uploaded(self, batch: FeatureBatch, uploads: int) -> None:
        if uploads:
            self.memo = self.memo.plus(uploads_dropped=uploads)
            slots = [slot for _, slot in self.ring.find(batch.session, batch.seq, batch.seq + len(batch.windows) - 1)]
            self._on_ring(lambda: self.ring.mark_uploaded(slots, False))

    def _put(self, records: list[OutboxRecord], change: Callable[[EdgeMemo], EdgeMemo]) -> bool:
        """Store records with the changed memo and say whether they fit; on a full disk the ring gives way to them."""
        try:
            try:
                self._put_once(records, change)
            except DiskFull as error:
                if self.ring_error is not None:
                    raise
                self._lose_ring(f"gave way to the outbox: {error}", Replaced(self.ring.windows, self.ring.unanswered))
                self._put_once(records, change)
        except OutboxFull as error:
            log.warning("event=outbox_full device=%s %s", self._device, error)
            return False
        return True

    def _put_once(self, records: list[OutboxRecord], change: Callable[[EdgeMemo], EdgeMemo]) -> None:
        memo = change(self.memo)
        self.outbox.put(records, memo.model_dump_json())
        self.memo = memo

    def _keep(
        self, batch: FeatureBatch, magnitudes: npt.NDArray[np.float32] | None, uploaded: npt.NDArray[np.bool_] | None
    ) -> None:
        count, put = len(batch.windows), Replaced(0, 0)

        def keep() -> None:
            nonlocal put
            times, windows = batch.event_times_ms, batch.windows
            said = batch.sampling_rate_hz, batch.step_samples
            put = self.ring.put(batch.session, batch.seq, times, windows, magnitudes, uploaded, *said)

        if self._on_ring(keep):
            counts = {"kept": count, "overwritten": put.windows, "unanswered_dropped": put.unanswered}
        else:
            counts = {"ring_dropped": count, "unanswered_dropped": 0 if magnitudes is not None else count}
        self.memo = self.memo.plus(**counts)

    def _on_ring(self, action: Callable[[], object]) -> bool:
        """Do something with the ring and say whether that worked; a disk that fails takes the ring, nothing else."""
        if self.ring_error is not None:
            return False
        before = Replaced(self.ring.windows, self.ring.unanswered)
        try:
            action()
        except (OSError, ConfigError) as error:  # the latter: not one window fits the size given
            self._lose_ring(str(error), before)
            return False
        return True

    def _lose_ring(self, reason: str, gone: Replaced) -> None:
        log.error("event=ring_lost device=%s windows=%d %s", self._device, gone.windows, reason)
        self.ring_error = reason[:1000]
        self._on_change()
        self.memo = self.memo.plus(ring_dropped=gone.windows, unanswered_dropped=gone.unanswered)
        try:
            self.ring.give_way()
        except OSError as error:
            log.error("event=ring_keeps_its_space device=%s %s", self._device, error)

    def _done(self, wanted: Wanted, up_to: int) -> bool:
        """Count what is not there, up to a window that may be."""
        self._on_change()
        return self._put([], lambda memo: _without(memo, wanted, up_to).plus(missed=up_to - wanted.first))


def _same(memo: EdgeMemo) -> EdgeMemo:
    return memo


def _without(memo: EdgeMemo, wanted: Wanted, up_to: int) -> EdgeMemo:
    """Return the memo where the oldest request is done up to a window, that one not included."""
    left = (wanted.model_copy(update={"first": up_to}),) if up_to <= wanted.last else ()
    return memo.model_copy(update={"wanted": (*left, *memo.wanted[1:])})
