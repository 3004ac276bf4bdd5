"""The thread that carries an outbox to Kafka: in order, until each record is acknowledged, whatever happens.

Why more than a kafka-python producer is needed (3.0.12):

- one record that the broker refuses puts the idempotent producer into a fatal state in which every later send fails
  with the same error, so it is rebuilt after any failure;
- a batch that failed or timed out does not hold back the next ones of its partition, and sending it again would turn
  the order of a device's records around; so the first failure stops the producer's network thread at once;
- the failure does not say which record the broker minds, so after one that repeating does not cure the records go one
  by one until the culprit is alone; only then is it put aside.
"""

import logging
import random
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from kafka.errors import (
    CorruptRecordError,
    InvalidRecordError,
    InvalidTimestampError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    RetriableError,
)

from acclimate.streams.device.outbox_producer import ProducerAttempt, end_producer
from acclimate.streams.device.outbox_store import OutboxStore, StoredRecord

__all__ = ["DeliveryReport", "OutboxSender"]

_log = logging.getLogger(__name__)

# What the broker says of a record itself, so that sending it again cannot help.
_REFUSALS = (
    CorruptRecordError,
    InvalidRecordError,
    InvalidTimestampError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)
# Records in the producer at a time: enough to keep a connection busy, small against the memory of a device.
_IN_FLIGHT_RECORDS = 512
_IN_FLIGHT_BYTES = 16 * 2**20
_BACKOFF_FIRST_S = 0.1
_BACKOFF_MAX_S = 5.0


@dataclass(frozen=True)
class DeliveryReport:
    """What became of one record.

    Attributes:
        device: The record's key.
        event_id: The first window of the record (header `ce_id`); empty where the header is missing.
        partition: Where the broker put it, None when it was refused.
        offset: The same.
        refused: Why the broker will never take it; None when it was delivered.
        topic: Where it went.
    """

    device: str
    event_id: str
    partition: int | None
    offset: int | None
    refused: str | None
    topic: str


class OutboxSender:
    """Send what waits in `store` to `topic` from a thread of its own, for ever.

    Args:
        store: Where the records wait.
        topic: Where they go unless they say it themselves.
        options: The options of the kafka-python producer: address, security, compression, request size.
        on_delivery: Called from the sending thread for each record that was delivered or refused, once it left the
            outbox. An exception that it raises ends the thread and is raised again by the outbox.
    """

    def __init__(
        self,
        store: OutboxStore,
        topic: str,
        options: Mapping[str, Any],
        on_delivery: Callable[[DeliveryReport], None] | None,
    ) -> None:
        self._store = store
        self._topic = topic
        self._options = {
            **options,
            "enable_idempotence": True,
            "acks": "all",
            # A topic that the broker makes by itself has CreateTime and then refuses devices with a wrong clock.
            "allow_auto_create_topics": False,
            "batch_size": 128 * 1024,
            "linger_ms": 10,  # one window per call: 840 instead of 550 a second
            "max_block_ms": 5_000,
            "reconnect_backoff_max_ms": 2_000,
            "metrics_enabled": False,
        }
        self._on_delivery = on_delivery
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._producer: Any = None  # kafka-python has no types
        self._in_flight: dict[int, StoredRecord] = {}
        self._in_flight_bytes = 0
        self._sent_row = 0  # everything up to here is in flight or gone
        self._one_by_one_to = 0  # up to this row, one record in flight
        self._acknowledged: deque[tuple[int, int, int]] = deque()  # row, partition, offset; from the network thread
        self._failure: tuple[int, BaseException] | None = None
        self._failures_in_a_row = 0
        self.delivered = 0
        self.refused = 0
        self.last_error: str | None = None
        self.crash: BaseException | None = None
        self.changed = threading.Condition()  # notified when records left the outbox, and when the thread ends
        self._thread = threading.Thread(target=self._run, name=f"outbox-{topic}", daemon=True)
        self._thread.start()

    @property
    def connected(self) -> bool:
        """Tell whether there is a producer that has not failed."""
        return self._producer is not None and self._failure is None

    def wake(self) -> None:
        """Tell the thread that there is something to send."""
        self._wake.set()

    def stop(self) -> None:
        """End the thread; what was not acknowledged stays in the store."""
        self._stopped.set()
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                self._wake.clear()
                self._step()
        except BaseException as error:
            self.crash = error
        finally:
            self._drop_producer()
            with self.changed:
                self.changed.notify_all()

    def _step(self) -> None:
        if self._producer is None:
            if self._store.waiting()[0] == 0:
                self._wake.wait()
                return
            if not self._connect():
                return
        self._settle()  # first: it makes room for more in flight
        self._send()
        if self._failure is not None:
            self._recover(*self._failure)
        elif not self._acknowledged:
            self._wake.wait()

    def _connect(self) -> bool:
        """Build a producer; an absent broker is waited for, unless the outbox is closed meanwhile."""
        attempt = ProducerAttempt(self._options, self._wake.set)
        while not attempt.done.is_set() and not self._stopped.is_set():
            self._wake.wait()
            self._wake.clear()
        if self._stopped.is_set():
            attempt.abandon()
            return False
        if isinstance(attempt.result, Exception):
            if not isinstance(attempt.result, KafkaError | OSError):
                raise attempt.result
            self._pause(attempt.result)
            return False
        self._producer = attempt.result
        self._wake.set()  # a put may have come while we waited above
        return True

    def _send(self) -> None:
        while self._failure is None and not self._stopped.is_set():
            alone = self._sent_row < self._one_by_one_to
            room = (1 if alone else _IN_FLIGHT_RECORDS) - len(self._in_flight)
            if room <= 0 or self._in_flight_bytes >= _IN_FLIGHT_BYTES:
                return
            found = self._store.after(self._sent_row, min(room, 64))  # 64: bounds the memory of large records
            if not found:
                return
            for stored in found:
                self._send_one(stored)
                if self._failure is not None:
                    return

    def _send_one(self, stored: StoredRecord) -> None:
        self._in_flight[stored.row] = stored
        self._in_flight_bytes += stored.size_bytes
        self._sent_row = stored.row
        record, producer = stored.record, self._producer
        try:
            # No timestamp: the broker's clock counts (LogAppendTime), the device's may be years off.
            future = producer.send(
                record.topic or self._topic, record.value, key=record.key, headers=list(record.headers)
            )
        except (KafkaError, ValueError) as error:  # ValueError: the topic has no partition just now
            self._failed(stored.row, producer, error)
            return
        future.add_callback(partial(self._delivered, stored.row))
        future.add_errback(partial(self._failed, stored.row, producer))

    def _delivered(self, row: int, metadata: Any) -> None:
        self._acknowledged.append((row, metadata.partition, metadata.offset))
        self._wake.set()

    def _failed(self, row: int, producer: Any, error: BaseException) -> None:
        if producer is self._producer and self._failure is None:
            self._failure = (row, error)
            # Runs in the producer's network thread, before it would send the next batch. `close` cannot do this: it
            # waits for what is in flight. The attribute is private; a test notices should it change.
            producer._sender.force_close()
        self._wake.set()

    def _settle(self) -> None:
        """Delete what was acknowledged and report it."""
        done = []
        while self._acknowledged:
            row, partition, offset = self._acknowledged.popleft()
            stored = self._in_flight.pop(row, None)
            if stored is not None:
                self._in_flight_bytes -= stored.size_bytes
                done.append((stored, partition, offset))
        if not done:
            return
        while True:
            try:
                self._store.remove([stored for stored, _, _ in done])
                break
            except sqlite3.OperationalError as error:  # a full disk: deleting needs space as well
                if self._stopped.is_set():
                    return  # they will be sent again, which is harmless
                self._pause(error)
        self._failures_in_a_row = 0
        if self._failure is None:
            self.last_error = None
        self.delivered += len(done)
        if self._on_delivery is not None:
            for stored, partition, offset in done:
                self._on_delivery(self._report(stored, partition, offset, None))
        with self.changed:
            self.changed.notify_all()

    def _recover(self, row: int, error: BaseException) -> None:
        """Start over behind the last acknowledged record, in order; the broker drops nothing, a repeat is harmless."""
        self._drop_producer()
        self._settle()
        unknown, self._in_flight, self._in_flight_bytes = self._in_flight, {}, 0
        self._failure = None
        self._sent_row = 0
        if isinstance(error, _REFUSALS) and list(unknown) == [row]:
            self._put_aside(unknown[row], error)
            return
        if not isinstance(error, RetriableError) and unknown:
            self._one_by_one_to = max(*unknown, self._one_by_one_to)
        if not isinstance(error, _REFUSALS):
            self._pause(error)

    def _put_aside(self, stored: StoredRecord, error: BaseException) -> None:
        reason = f"{type(error).__name__}: {error}"
        _log.error("Kafka refused a record of %s for good: %s", stored.record.key.decode(errors="replace"), reason)
        self._store.refuse(stored, reason)
        self.refused += 1
        if self._on_delivery is not None:
            self._on_delivery(self._report(stored, None, None, reason))
        with self.changed:
            self.changed.notify_all()

    def _pause(self, error: BaseException) -> None:
        self.last_error = f"{type(error).__name__}: {error}"
        delay_s = min(_BACKOFF_MAX_S, _BACKOFF_FIRST_S * 2**self._failures_in_a_row) * random.uniform(0.75, 1.25)
        self._failures_in_a_row = min(self._failures_in_a_row + 1, 10)
        _log.warning("cannot send to %s, next attempt in %.1f s: %s", self._topic, delay_s, self.last_error)
        self._stopped.wait(delay_s)
        self._wake.set()

    def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            end_producer(producer)

    def _report(
        self, stored: StoredRecord, partition: int | None, offset: int | None, refused: str | None
    ) -> DeliveryReport:
        record = stored.record
        event_id = dict(record.headers).get("ce_id", b"").decode(errors="replace")
        key, topic = record.key.decode(errors="replace"), record.topic or self._topic
        return DeliveryReport(key, event_id, partition, offset, refused, topic)
