"""Bytes of a ``.features`` record to arrays and back; everything that can be wrong with a record is found here.

Sizes are checked before anything is parsed, so that hostile input costs little.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from acclimate.adaptation.errors import DataError
from acclimate.streams.wire.messages import DEVICE_PATTERN, SCHEMA_VERSION, FeatureRecord, event_id
from acclimate.streams.wire.sampling_rate import check_model_rate

__all__ = ["FeatureBatch", "check_device", "decode_features", "encode_features", "input_digest"]

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class FeatureBatch:
    """A decoded record: ``windows`` (n, channels, length) float32 and one event time per window.

    ``sampling_rate_hz`` and ``step_samples`` as in :class:`acclimate.streams.wire.messages.FeatureRecord`.
    """

    device: str
    session: str
    seq: int
    event_times_ms: Sequence[int]
    windows: Float32
    sampling_rate_hz: float | None = None
    step_samples: int | None = None

    def event_ids(self) -> list[str]:
        """Return the event id of every window, in order."""
        return [event_id(self.device, self.session, self.seq + i) for i in range(len(self.windows))]


def input_digest(window: Float32, event_time_ms: int) -> str:
    """Return the SHA-256 of one window (channels, length) and its event time: all that an answer depends on.

    The number spelling on the wire does not count, so a window sent as a list and as base64 has one digest.
    """
    channels, length = window.shape
    head = f"{channels}x{length}@{event_time_ms}:".encode()
    return hashlib.sha256(head + window.astype("<f4", copy=False).tobytes()).hexdigest()


def encode_features(batch: FeatureBatch) -> bytes:
    """Return the record value for a batch; the windows travel as base64 of little-endian float32.

    What the device does not say of its sampling is left out, so such records have the bytes that they always had.
    """
    said = {"sampling_rate_hz": batch.sampling_rate_hz, "step_samples": batch.step_samples}
    sampling = "".join(f',"{name}":{value}' for name, value in said.items() if value is not None)
    data = base64.b64encode(batch.windows.astype("<f4", copy=False).tobytes()).decode()
    return (
        f'{{"schema_version":{SCHEMA_VERSION},"device":"{batch.device}","session":"{batch.session}","seq":{batch.seq},'
        f'"event_times_ms":[{",".join(map(str, batch.event_times_ms))}],'
        f'"windows":{{"shape":[{",".join(map(str, batch.windows.shape))}],"data":"{data}"}}{sampling}}}'
    ).encode()


def decode_features(
    key: bytes | None,
    value: bytes | None,
    *,
    channels: int,
    length: int,
    bytes_max: int,
    sampling_rate_hz: float | None = None,
) -> FeatureBatch:
    """Decode and check one record.

    Args:
        key: Record key, the device id in UTF-8.
        value: Record value, see :class:`acclimate.streams.wire.messages.FeatureRecord`.
        channels: Channels of the model in force.
        length: Samples per window of the model in force.
        bytes_max: Largest value that is parsed at all, in bytes.
        sampling_rate_hz: The rate that the model takes; None takes any.

    Raises:
        DataError: with a stable ``reason`` word; the text says what was expected and what came.
    """
    if value is None:
        raise DataError("the record is a tombstone (null value); .features records always have a value", "tombstone")
    if not value:
        raise DataError("the record value is empty", "empty")
    if len(value) > bytes_max:
        raise DataError(
            f"the value has {len(value)} bytes, at most {bytes_max} are read; send fewer windows", "too_large"
        )
    if key is None:
        raise DataError("the record key is null; it must be the device id", "null_key")
    record = _parse(value)
    if key != record.device.encode():
        raise DataError(f"the key {key[:80]!r} is not the device id {record.device!r} of the value", "key_mismatch")
    windows = _windows(record, channels, length)
    check_model_rate(record.sampling_rate_hz, sampling_rate_hz)
    return FeatureBatch(
        record.device,
        record.session,
        record.seq,
        tuple(record.event_times_ms),
        windows,
        record.sampling_rate_hz,
        record.step_samples,
    )


def _parse(value: bytes) -> FeatureRecord:
    try:
        return FeatureRecord.model_validate_json(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "json_invalid":
            raise DataError(f"the value is not JSON: {first['msg']}", "not_json") from None
        reasons = {"schema_version": "schema_version", "device": "device_id"}
        reason = reasons.get(str(first["loc"][0]) if first["loc"] else "", "schema")
        raise DataError(f"field {where or '(record)'}: {first['msg']}", reason) from None


def _windows(record: FeatureRecord, channels: int, length: int) -> Float32:
    n, c, t = record.windows.shape
    if (c, t) != (channels, length):
        raise DataError(
            f"windows have shape {c}x{t} (channels x length), the model takes {channels}x{length}", "wrong_shape"
        )
    if n != len(record.event_times_ms):
        raise DataError(f"{n} windows but {len(record.event_times_ms)} event times", "wrong_count")
    data = record.windows.data
    expected = n * c * t
    if isinstance(data, str):
        try:
            raw = binascii.a2b_base64(data, strict_mode=True)
        except (binascii.Error, ValueError) as error:
            raise DataError(f"windows.data is not base64: {error}", "not_base64") from None
        if len(raw) != 4 * expected:
            raise DataError(f"windows.data holds {len(raw)} bytes, the shape needs {4 * expected}", "wrong_size")
        flat = np.frombuffer(raw, "<f4").astype(np.float32, copy=False)
    else:
        if len(data) != expected:
            raise DataError(f"windows.data holds {len(data)} numbers, the shape needs {expected}", "wrong_size")
        with np.errstate(over="ignore"):  # a number beyond float32 becomes inf and is refused below
            flat = np.asarray(data, dtype=np.float64).astype(np.float32)
    if not np.isfinite(flat).all():
        raise DataError(f"{int((~np.isfinite(flat)).sum())} of {expected} values are NaN or infinite", "not_finite")
    return flat.reshape(n, c, t)


_DEVICE = re.compile(DEVICE_PATTERN)


def check_device(device: str) -> str:
    """Return ``device`` if it is a valid device id.

    Raises:
        DataError: it is not.
    """
    if not _DEVICE.fullmatch(device):
        raise DataError(f"device id {device[:80]!r} does not match {DEVICE_PATTERN}", "device_id")
    return device
