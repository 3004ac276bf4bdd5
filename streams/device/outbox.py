"""A buffer on disk between a device program and Kafka.

`put` returns when the records are safe on disk; a thread brings them to Kafka in order and deletes each one after the
broker's acknowledgement. A crash, a power cut or an absent broker delays records and never loses or reorders them; a
crash may send some twice, and equal event ids make that harmless.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import Literal, Self

from acclimate.adaptation.errors import DataError
from acclimate.infra.settings import Settings
from acclimate.streams.device.outbox_sender import DeliveryReport, OutboxSender
from acclimate.streams.device.outbox_store import (
    DiskFull,
    OutboxFull,
    OutboxRecord,
    OutboxStore,
    RefusedRecord,
    record_bytes,
)
from acclimate.streams.wire.connect import kafka_python_options
from acclimate.streams.wire.topics import topic_name

__all__ = [
    "DeliveryReport",
    "DiskFull",
    "Outbox",
    "OutboxFull",
    "OutboxRecord",
    "OutboxStats",
    "RefusedRecord",
    "open_outbox",
    "record_bytes",
]

_BATCH_OVERHEAD_BYTES = 64 * 1024  # the producer compares a whole batch with its limit


@dataclass(frozen=True)
class OutboxStats:
    """Where an outbox stands.

    Attributes:
        waiting_records: Stored and not yet acknowledged.
        waiting_bytes: Their size as the broker counts it, compared with the limit.
        delivered: Records acknowledged since this outbox was opened.
        refused: Records that the broker will never take, since this outbox was opened.
        connected: Whether a working connection to Kafka is there; False as well while nothing had to be sent.
        last_error: Why the last attempt failed, None when nothing is wrong.
    """

    waiting_records: int
    waiting_bytes: int
    delivered: int
    refused: int
    connected: bool
    last_error: str | None


class Outbox:
    """Open a buffer on disk and start sending what it holds.

    Args:
        path: The file; one process at a time. Its size stays within about twice `bytes_max`.
        settings: Broker, security and limits.
        topic: Where records go that name no topic; the fleet's `.features` when not given.
        on_delivery: Called from the sending thread once per record that was delivered or refused; at least once if the
            process ends in between. An exception in it stops the sending and comes out of the next `put` or `flush`.
        compression: `gzip` saves about a quarter of the bytes on the line and costs about 1 ms of processor per record.
        bytes_max: Limit for what waits, in bytes; the settings' `outbox_bytes_max` when not given.
        record_bytes_max: Limit of one record, in bytes; the settings' when not given.

    Raises:
        ConfigError: Another process uses the file, it holds records for another topic, or it is no outbox.
    """

    def __init__(
        self,
        path: Path | str,
        settings: Settings,
        *,
        topic: str | None = None,
        on_delivery: Callable[[DeliveryReport], None] | None = None,
        compression: Literal["gzip"] | None = None,
        bytes_max: int | None = None,
        record_bytes_max: int | None = None,
    ) -> None:
        self.path = Path(path)
        self.topic = topic or topic_name(settings.fleet, "features")
        # Held while records are made and stored, so that numbers in them have no gap and come in order.
        self.publishing = RLock()
        self._record_bytes_max = record_bytes_max or settings.record_bytes_max
        self._closed = False
        options = {
            **kafka_python_options(settings),
            "client_id": f"acclimate-{settings.fleet}",
            "compression_type": compression,
            "max_request_size": self._record_bytes_max + _BATCH_OVERHEAD_BYTES,
        }
        self._store = OutboxStore(self.path, self.topic, bytes_max or settings.outbox_bytes_max)
        self._sender = OutboxSender(self._store, self.topic, options, on_delivery)

    def put(self, records: Sequence[OutboxRecord], memo: str | None = None) -> None:
        """Store records, all or none; once this returns they survive a crash and a power cut.

        Args:
            records: In the order in which they are sent.
            memo: What the program must remember in step with what it sent; replaces the last one.

        Raises:
            DataError: A record is larger than the broker takes; nothing was stored.
            OutboxFull: They do not fit; nothing was stored.
            DiskFull: The same, for want of space on the disk.
        """
        self._check_alive()
        for record in records:
            size = record_bytes(record)
            if size > self._record_bytes_max:
                raise DataError(
                    f"a record of {record.key.decode(errors='replace')!r} has {size} bytes with its headers, Kafka "
                    f"takes at most {self._record_bytes_max}; publish smaller windows. Nothing was stored of this call",
                    "too_large",
                )
        self._store.put(records, memo)
        self._sender.wake()

    def memo(self) -> str | None:
        """Return what was last stored beside the records; None for nothing yet."""
        return self._store.memo()

    def flush(self, timeout_s: float | None = None) -> int:
        """Wait until everything stored so far was delivered or refused, and return how many records still wait.

        Args:
            timeout_s: Seconds to wait at most; None waits for ever.
        """
        return self.wait_until_below(1, timeout_s)

    def wait_until_below(self, records: int, timeout_s: float | None = None) -> int:
        """Wait until fewer than `records` wait, and return how many still do; for a producer faster than the line."""
        self._check_alive()
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._sender.changed:
            while (waiting := self._store.waiting()[0]) >= records:
                self._check_alive()
                left_s = None if deadline is None else deadline - time.monotonic()
                if left_s is not None and left_s <= 0:
                    break
                self._sender.changed.wait(left_s)
        return waiting

    def stats(self) -> OutboxStats:
        """Return where the outbox stands."""
        records, size = self._store.waiting()
        sender = self._sender
        return OutboxStats(records, size, sender.delivered, sender.refused, sender.connected, sender.last_error)

    def refused(self) -> list[RefusedRecord]:
        """Return the newest 100 records that the broker will never take, with its reason."""
        return self._store.refused()

    def close(self, timeout_s: float = 10.0) -> None:
        """Send what can be sent within `timeout_s` seconds, and stop; the rest is sent at the next start.

        Raises:
            RuntimeError: The sending thread had ended by a bug or by an exception of `on_delivery`.
        """
        if self._closed:
            return
        try:
            self.flush(timeout_s)
        finally:
            self._closed = True
            self._sender.stop()
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(10.0 if kind is None else 0.0)

    def _check_alive(self) -> None:
        if self._closed:
            raise RuntimeError(f"outbox {self.path} is closed")
        if self._sender.crash is not None:
            raise RuntimeError(
                f"the sending thread of outbox {self.path} has ended: {self._sender.crash!r}; what waits is safe on "
                "disk and is sent after a restart"
            ) from self._sender.crash


def open_outbox(
    device: str,
    settings: Settings,
    *,
    on_delivery: Callable[[DeliveryReport], None] | None = None,
    record_bytes_max: int | None = None,
) -> Outbox:
    """Open a device's own outbox: the file of the settings, or `.acclimate/outbox-FLEET-DEVICE.sqlite`.

    Args:
        device: Its id.
        settings: See `Outbox`.
        on_delivery: See `Outbox`.
        record_bytes_max: See `Outbox`.

    Raises:
        ConfigError: The outbox cannot be used.
    """
    path = settings.outbox or Path(".acclimate") / f"outbox-{settings.fleet}-{device}.sqlite"
    return Outbox(path, settings, on_delivery=on_delivery, record_bytes_max=record_bytes_max)
