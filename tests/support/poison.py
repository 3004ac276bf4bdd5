"""Records that must end as dead letters, each with the reason it must be given."""

import base64
import json
import struct
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Poison:
    name: str
    key: bytes | None
    value: bytes | None
    reason: str


def POISON(channels: int, length: int) -> list[Poison]:
    """One record of every kind that the issue lists, for a model of this input shape."""
    size = channels * length

    def record(name: str, reason: str, key: bytes | None = b"pump-7", **changes: Any) -> Poison:
        good = {
            "schema_version": 1,
            "device": "pump-7",
            "session": "00ff00ff00ff00ff",
            "seq": 5,
            "event_times_ms": [1_700_000_000_000],
            "windows": {"shape": [1, channels, length], "data": [0.5] * size},
        }
        return Poison(name, key, json.dumps(good | changes).encode(), reason)

    def raw(name: str, reason: str, value: bytes | None) -> Poison:
        return Poison(name, b"pump-7", value, reason)

    def windows(shape: list[int], data: object) -> dict[str, object]:
        return {"shape": shape, "data": data}

    packed_nan = base64.b64encode(struct.pack(f"<{size}f", *([float("nan")] * size))).decode()
    good = record("good", "").value or b""
    shape = [1, channels, length]
    return [
        raw("tombstone", "tombstone", None),
        raw("empty value", "empty", b""),
        raw("noise bytes", "not_json", b"\xff" * 512),
        raw("truncated json", "not_json", good[:-20]),
        raw("truncated utf-8", "not_json", '{"device": "pümp'.encode()[:13]),
        raw("utf-16", "not_json", good.decode().encode("utf-16")),
        raw("nested json of depth 10,000", "not_json", b"[" * 10_000 + b"]" * 10_000),
        raw("nested objects of depth 10,000", "not_json", b'{"windows":' * 10_000 + b"1" + b"}" * 10_000),
        raw("a list instead of a record", "schema", b"[1,2,3]"),
        raw("null", "schema", b"null"),
        raw("40 MB that came compressed", "too_large", b" " * 40_000_000),
        record("nan in numbers", "not_finite", windows=windows(shape, [float("nan")] * size)),
        record("inf in numbers", "not_finite", windows=windows(shape, [float("inf")] * size)),
        record("nan in base64", "not_finite", windows=windows(shape, packed_nan)),
        record("a number beyond float32", "not_finite", windows=windows(shape, [1e300] * size)),
        record("wrong channel count", "wrong_shape", windows=windows([1, channels + 1, length], [0.5] * size)),
        record("wrong length", "wrong_shape", windows=windows([1, channels, length + 1], [0.5] * size)),
        record("a million floats", "too_large", windows=windows(shape, [0.5] * 1_000_000)),
        record("too many floats", "wrong_size", windows=windows(shape, [0.5] * 100_000)),
        record("a shape that overflows", "schema", windows=windows([2**62, 2**62, 2**62], "")),
        record("zero windows", "schema", windows=windows([0, channels, length], [])),
        record("base64 with a wrong size", "wrong_size", windows=windows(shape, "AAAA")),
        record("base64 with junk", "not_base64", windows=windows(shape, "AA*A")),
        record("more event times than windows", "wrong_count", event_times_ms=[1, 2]),
        record("more windows than a record may hold", "schema", event_times_ms=[1] * 257),
        record("a sampling rate of zero", "schema", sampling_rate_hz=0),
        record("an infinite sampling rate", "schema", sampling_rate_hz=float("inf")),
        record("a sampling rate that is no number", "schema", sampling_rate_hz=float("nan")),
        record("a step of half a sample", "schema", step_samples=0.5),
        record("a huge integer as seq", "schema", seq=10**400),
        record("a huge integer as event time", "schema", event_times_ms=[10**30]),
        record("a float as seq", "schema", seq=1.5),
        record("unknown schema version", "schema_version", schema_version=99),
        record("a string as schema version", "schema_version", schema_version="1"),
        record("hostile device id", "device_id", device="../../etc/passwd", key=b"../../etc/passwd"),
        record("device id with a newline", "device_id", device="pump-7\n", key=b"pump-7\n"),
        record("missing device", "device_id", device=None),
        record("hostile session", "schema", session="x" * 100),
        record("null key", "null_key", key=None),
        record("empty key", "key_mismatch", key=b""),
        record("key of another device", "key_mismatch", key=b"pump-8"),
        record("key that is not utf-8", "key_mismatch", key=b"\xff\xfe"),
    ]
