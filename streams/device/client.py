"""The device's side: publish windows, get an event id for each, and let the outbox bring them to Kafka.

Imports numpy, pydantic and kafka-python only, so that `acclimate[device]` fits on a small machine.
"""

import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from acclimate.adaptation.errors import ConfigError, DataError
from acclimate.infra.settings import Settings
from acclimate.streams.device.outbox import DeliveryReport, Outbox, OutboxRecord, open_outbox
from acclimate.streams.device.sampling import Sampling
from acclimate.streams.wire.codec import FeatureBatch, check_device, encode_features
from acclimate.streams.wire.messages import WINDOWS_PER_RECORD_MAX, event_id
from acclimate.streams.wire.records import cloud_event
from acclimate.streams.wire.sampling_rate import check_session_rate

__all__ = [
    "DeviceClient",
    "Publication",
    "as_times",
    "as_windows",
    "check_traceparent",
    "feature_batches",
    "feature_headers",
    "features_fitting",
    "new_session",
    "own_session",
    "publish_together",
]

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
# Upper bounds of what a record is besides its windows: JSON frame, headers (two of them with the device id), and per
# window one event time.
_FRAME_BYTES = 1_500
_EVENT_TIME_BYTES = 21
_INT64 = np.iinfo(np.int64)

Windows = npt.ArrayLike


def new_session() -> str:
    """Return a random session id: 16 hexadecimal digits, one for each start of a client."""
    return secrets.token_hex(8)


def own_session(given: str | None) -> str:
    """Return the session of a client: a random one where none is given.

    Raises:
        DataError: The one given is no session id.
    """
    session = new_session() if given is None else given
    if not re.fullmatch("[0-9a-f]{16}", session):
        raise DataError(f"a session is 16 hexadecimal digits, not {session[:40]!r}", "session")
    return session


class DeviceClient:
    """Publish the windows of one device.

    Args:
        device: Device id, 1 to 64 of the characters `A-Za-z0-9._-`.
        settings: Broker, security and limits.
        outbox: A shared buffer, for a gateway with several devices; it is not closed with the client. When not given,
            the client opens the file of `settings.outbox`, or `.acclimate/outbox-FLEET-DEVICE.sqlite`.
        session: 16 hexadecimal digits, never used before for this device; random when not given.
        clock: Returns seconds since 1970; the event time of windows published without one.
        on_delivery: See `Outbox`; with a shared outbox it belongs there.
        sampling_rate_hz: Samples per second, sent with each record so that a model of another rate refuses it.
        step_samples: Samples from the start of one window to the start of the next. Without a rate the client works the
            rate of a call out from this and its event times, where they tell it; see
            `acclimate.streams.device.sampling.Sampling`.

    Raises:
        DataError: The device id, the session or the sampling is not valid.
        ConfigError: The outbox cannot be used.
    """

    def __init__(
        self,
        device: str,
        settings: Settings,
        *,
        outbox: Outbox | None = None,
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
        if outbox is not None and on_delivery is not None:
            raise ConfigError(
                "with a shared outbox, on_delivery is given to the outbox: it sees every device's records"
            )
        self._settings = settings
        self._clock = clock
        self._seq = 0
        self._owns_outbox = outbox is None
        self.outbox = outbox or open_outbox(device, settings, on_delivery=on_delivery)

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
    ) -> list[str]:
        """Store windows for sending and return their event ids; labels that come later carry these.

        Args:
            windows: (n, channels, length), or (channels, length) for one window; an array or nested lists, converted
                to float32.
            event_times_ms: One time per window in milliseconds since 1970 by the device's clock; one number is meant
                for all; now when not given.
            traceparent: W3C trace context to send along.

        Raises:
            DataError: Windows or times are wrong, one window is larger than Kafka takes, or the rate worked out is
                another one than earlier in this session; nothing was stored.
            OutboxFull: The buffer on disk is full; nothing was stored.
        """
        return publish_together([Publication(self, windows, event_times_ms, traceparent)])[0]

    def flush(self, timeout_s: float | None = None) -> int:
        """Wait until everything was delivered or refused; return how many records of the outbox still wait."""
        return self.outbox.flush(timeout_s)

    def close(self, timeout_s: float = 10.0) -> None:
        """Close the client's own outbox, see `Outbox.close`; a shared one is left open."""
        if self._owns_outbox:
            self.outbox.close(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(10.0 if kind is None else 0.0)

    def _records(self, whole: FeatureBatch, traceparent: str | None) -> list[OutboxRecord]:
        """Return the records for windows (n, channels, length)."""
        return [
            OutboxRecord(
                self.device.encode(),
                encode_features(batch),
                feature_headers(self._settings.fleet, batch, "features.v1", traceparent),
            )
            for batch in feature_batches(whole, self._settings.record_bytes_max)
        ]


def features_fitting(size_bytes: int, samples: int) -> int:
    """Return how many windows of so many samples (channels times length) surely fit a record of a size in bytes."""
    window_bytes = 4 * samples * 4 // 3 + 4 + _EVENT_TIME_BYTES  # base64 of float32
    return max(0, (size_bytes - _FRAME_BYTES) // window_bytes)


def feature_batches(batch: FeatureBatch, bytes_max: int) -> list[FeatureBatch]:
    """Return a batch as the batches of single records, each within a size in bytes where one window is."""
    per_record = min(WINDOWS_PER_RECORD_MAX, max(1, features_fitting(bytes_max, batch.windows[0].size)))
    return [
        replace(
            batch,
            seq=batch.seq + start,
            event_times_ms=batch.event_times_ms[start : start + per_record],
            windows=batch.windows[start : start + per_record],
        )
        for start in range(0, len(batch.windows), per_record)
    ]


def feature_headers(
    fleet: str, batch: FeatureBatch, kind: str, traceparent: str | None = None
) -> tuple[tuple[str, bytes], ...]:
    """Return the headers of a record with a device's windows.

    ``kind`` is that of `acclimate.streams.wire.records.cloud_event`.
    """
    identity = event_id(batch.device, batch.session, batch.seq)
    headers = tuple(cloud_event(kind, f"/{fleet}/devices/{batch.device}", identity))
    return (*headers, ("traceparent", traceparent.encode())) if traceparent is not None else headers


class Publication(NamedTuple):
    """One client's part of a common publication; fields as in `DeviceClient.publish`."""

    client: DeviceClient
    windows: Windows
    event_times_ms: int | Sequence[int] | None = None
    traceparent: str | None = None


def publish_together(publications: Sequence[Publication]) -> list[list[str]]:
    """Store windows of several clients of one outbox in one transaction, all or none, in the order given.

    One flush of the disk for all of them: this is what makes a gateway of many devices fast.

    Returns:
        The event ids of each publication.

    Raises:
        ConfigError: The clients do not share one outbox.
        DataError: As in `DeviceClient.publish`; nothing was stored.
        OutboxFull: The buffer on disk is full; nothing was stored.
    """
    if not publications:
        return []
    outbox = publications[0].client.outbox
    if any(publication.client.outbox is not outbox for publication in publications):
        raise ConfigError("only clients that share one outbox can publish together; give them the same Outbox")
    checked = [_checked(publication) for publication in publications]
    with outbox.publishing:
        following = {publication.client: publication.client.next_seq for publication in publications}
        session_hz = {client: client._session_hz for client in following}
        records: list[OutboxRecord] = []
        ids = []
        for (client, _, _, traceparent), (windows, times) in zip(publications, checked, strict=True):
            first = following[client]
            following[client] += len(windows)
            sampling = client._sampling
            rate_hz = sampling.rate_of(times)
            check_session_rate(rate_hz, session_hz[client])
            session_hz[client] = session_hz[client] or rate_hz
            whole = FeatureBatch(client.device, client.session, first, times, windows, rate_hz, sampling.step_samples)
            records += client._records(whole, traceparent)
            ids.append([event_id(client.device, client.session, seq) for seq in range(first, following[client])])
        outbox.put(records)
        for client, seq in following.items():
            client._seq, client._session_hz = seq, session_hz[client]
    return ids


def _checked(publication: Publication) -> tuple[npt.NDArray[np.float32], Sequence[int]]:
    client, windows, event_times_ms, traceparent = publication
    check_traceparent(traceparent)
    array = as_windows(windows)
    times: Any = event_times_ms if event_times_ms is not None else round(client._clock() * 1000)
    return array, as_times(times, len(array))


def check_traceparent(traceparent: str | None) -> None:
    """Check a W3C trace context.

    Raises:
        DataError: It is none.
    """
    if traceparent is not None and not _TRACEPARENT.fullmatch(traceparent):
        raise DataError(f"traceparent {traceparent[:80]!r} is not of the form 00-TRACE-SPAN-FLAGS", "traceparent")


def as_windows(windows: Windows) -> npt.NDArray[np.float32]:
    """Return windows as finite float32 (n, channels, length).

    Raises:
        DataError: They are no such windows.
    """
    try:
        given = np.asarray(windows)
    except ValueError as error:  # nested lists of unequal length
        raise DataError(f"windows must have equal shapes, (n, channels, length): {error}", "wrong_shape") from error
    if given.dtype.kind not in "fiu":
        raise DataError(f"windows must be real numbers, found {given.dtype}", "wrong_type")
    if given.ndim == 2:
        given = given[None]
    if given.ndim != 3 or 0 in given.shape:
        raise DataError(
            f"windows must be (n, channels, length) or (channels, length), none of them 0; found {given.shape}",
            "wrong_shape",
        )
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite and is refused below
        array = np.ascontiguousarray(given, dtype=np.float32)
    finite = np.isfinite(array).all(axis=(1, 2))
    if not finite.all():
        raise DataError(
            f"{int((~finite).sum())} of {len(array)} windows hold NaN, infinity or numbers beyond float32 "
            f"(first: window {int(np.argmin(finite))}); leave them out or repair them. Nothing was stored of this call",
            "not_finite",
        )
    return array


def as_times(times: Any, windows: int) -> Sequence[int]:
    """Return one event time per window, milliseconds since 1970.

    Raises:
        DataError: They are no such times.
    """
    array = np.asarray(times)
    if array.dtype.kind not in "iu":
        raise DataError(f"event times must be whole milliseconds since 1970, found {array.dtype}", "event_time")
    if array.ndim == 0:
        array = np.full(windows, array)
    if array.shape != (windows,):
        raise DataError(f"{windows} windows need {windows} event times, found {array.shape}", "wrong_count")
    if array.dtype.kind == "u" and int(array.max()) > _INT64.max:
        raise DataError(f"event time {int(array.max())} is beyond 64 bits", "event_time")
    result: list[int] = array.tolist()
    return result
