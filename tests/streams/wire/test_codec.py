"""Decoding is where hostile bytes meet us: every way to be wrong has its own reason, and nothing else escapes."""

import base64
import contextlib
import hashlib
import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.adaptation.errors import DataError
from acclimate.streams.wire.codec import FeatureBatch, check_device, decode_features, encode_features, input_digest
from acclimate.streams.wire.messages import FeatureRecord
from tests.support.poison import POISON

CHANNELS, LENGTH, BYTES_MAX = 2, 3, 1_000_000


def decode(key, value):
    return decode_features(key, value, channels=CHANNELS, length=LENGTH, bytes_max=BYTES_MAX)


def record(**changes):
    good = {
        "schema_version": 1,
        "device": "pump-7",
        "session": "00ff00ff00ff00ff",
        "seq": 5,
        "event_times_ms": [1_700_000_000_000],
        "windows": {"shape": [1, CHANNELS, LENGTH], "data": [1, 2, 3, 4, 5, 6.5]},
    }
    return json.dumps(good | changes).encode()


@pytest.mark.parametrize("poison", POISON(CHANNELS, LENGTH), ids=lambda p: p.name)
def test_each_kind_of_poison_is_refused_with_its_own_reason(poison):
    with pytest.raises(DataError) as caught:
        decode(poison.key, poison.value)
    assert caught.value.reason == poison.reason


def test_numbers_and_base64_decode_to_the_same_windows():
    numbers = [1, 2, 3, 4, 5, 6.5]
    packed = base64.b64encode(struct.pack("<6f", *numbers)).decode()
    as_list = decode(b"pump-7", record())
    as_base64 = decode(b"pump-7", record(windows={"shape": [1, CHANNELS, LENGTH], "data": packed}))
    assert as_list.windows.dtype == np.float32
    assert as_list.windows.tolist() == [[[1, 2, 3], [4, 5, 6.5]]]
    np.testing.assert_array_equal(as_list.windows, as_base64.windows)


def test_unknown_fields_of_a_newer_device_are_ignored():
    assert decode(b"pump-7", record(firmware="9.1")).device == "pump-7"


@pytest.mark.parametrize("event_time", [0, 4_102_444_800_000, -1])
def test_an_implausible_event_time_is_no_reason_to_refuse(event_time):
    assert decode(b"pump-7", record(event_times_ms=[event_time])).event_times_ms == (event_time,)


def test_the_input_digest_is_the_sha256_of_shape_time_and_little_endian_bytes():
    window = np.array([[1, 2, 3], [4, 5, 6.5]], np.float32)
    expected = hashlib.sha256(b"2x3@77:" + struct.pack("<6f", 1, 2, 3, 4, 5, 6.5)).hexdigest()
    assert input_digest(window, 77) == expected


@given(
    n=st.integers(1, 5),
    seq=st.integers(0, 2**53 - 1),
    device=st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True),
    session=st.from_regex(r"[0-9a-f]{16}", fullmatch=True),
    data=st.data(),
)
def test_what_is_encoded_decodes_to_the_same_batch(n, seq, device, session, data):
    floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
    values = data.draw(st.lists(floats, min_size=n * 6, max_size=n * 6))
    times = data.draw(st.lists(st.integers(-(2**62), 2**62), min_size=n, max_size=n))
    batch = FeatureBatch(device, session, seq, tuple(times), np.array(values, np.float32).reshape(n, 2, 3))
    decoded = decode(device.encode(), encode_features(batch))
    np.testing.assert_array_equal(decoded.windows, batch.windows)
    assert decoded.event_ids() == [f"{device}/{session}/{seq + i}" for i in range(n)]
    assert (decoded.session, decoded.seq, decoded.event_times_ms) == (session, seq, tuple(times))


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({}, b""),
        ({"sampling_rate_hz": 52.0}, b',"sampling_rate_hz":52.0'),
        ({"step_samples": np.int64(26)}, b',"step_samples":26'),
        ({"sampling_rate_hz": 1e-05, "step_samples": 1}, b',"sampling_rate_hz":1e-05,"step_samples":1'),
    ],
)
def test_only_what_the_device_says_of_its_sampling_is_in_the_record(said, text):
    windows = np.zeros((1, CHANNELS, LENGTH), np.float32)
    value = encode_features(FeatureBatch("pump-7", "00ff00ff00ff00ff", 5, (7,), windows, **said))
    plain = encode_features(FeatureBatch("pump-7", "00ff00ff00ff00ff", 5, (7,), windows))
    assert value == plain[:-1] + text + b"}"
    batch = decode(b"pump-7", value)
    assert (batch.sampling_rate_hz, batch.step_samples) == (said.get("sampling_rate_hz"), said.get("step_samples"))


@pytest.mark.parametrize(("model_hz", "refused"), [(52.0, True), (104.0, False), (None, False)])
def test_windows_of_another_rate_than_the_models_are_refused(model_hz, refused):
    shape = {"channels": CHANNELS, "length": LENGTH, "bytes_max": BYTES_MAX}
    with pytest.raises(DataError) if refused else contextlib.nullcontext() as caught:
        decode_features(b"pump-7", record(sampling_rate_hz=104), **shape, sampling_rate_hz=model_hz)
    assert not refused or caught.value.reason == "wrong_rate"


@settings(max_examples=500)
@given(key=st.none() | st.binary(max_size=80), value=st.none() | st.binary(max_size=400))
def test_random_bytes_raise_nothing_but_data_errors(key, value):
    with pytest.raises(DataError):
        decode(key, value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=500)
@given(field=st.sampled_from(sorted(FeatureRecord.model_fields)), junk=JSON)
def test_junk_in_any_field_raises_nothing_but_data_errors(field, junk):
    try:
        batch = decode(b"pump-7", record(**{field: junk}))
    except DataError:
        return
    assert np.isfinite(batch.windows).all()
    assert batch.windows.shape == (1, CHANNELS, LENGTH)


@given(cut=st.integers(0, 200), flip=st.integers(0, 7), at=st.integers(0, 10_000))
def test_a_damaged_record_raises_nothing_but_data_errors_or_stays_readable(cut, flip, at):
    value = bytearray(record())
    value[at % len(value)] ^= 1 << flip
    with contextlib.suppress(DataError):
        decode(b"pump-7", bytes(value[: len(value) - cut]))


@pytest.mark.parametrize("device", ["", "a/b", "a b", "ü", "x" * 65, "pump\n", "../etc"])
def test_a_hostile_device_id_is_refused(device):
    with pytest.raises(DataError):
        check_device(device)
