"""A device that answers itself: the bytes of a worker, nothing lost silently, releases that change between calls."""

import errno
import json
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acclimate.adaptation.errors import ConfigError, DataError
from acclimate.infra.settings import Settings
from acclimate.registry.bundles.source_bundle import Bundle
from acclimate.streams.device.client import DeviceClient
from acclimate.streams.device.edge import EdgeClient, UploadRule
from acclimate.streams.device.outbox import record_bytes
from acclimate.streams.device.ring import WindowRing
from acclimate.streams.device.window_requests import RequestReader, partition_of, request_windows
from acclimate.streams.serving.served import InForce, serve
from acclimate.streams.wire.codec import decode_features
from acclimate.streams.wire.messages import DeviceStatus
from acclimate.streams.wire.reading import read_topic
from acclimate.streams.wire.records import Incoming
from tests.support.answers import by_window
from tests.support.delivery import wait_for
from tests.support.fleet_topics import NOWHERE, new_fleet
from tests.support.models import core, outputs, windows
from tests.support.releases import Fleet, Signed, made
from tests.support.signed import trust

ROOT = Path(__file__).parents[3]
SESSION = "00ff00ff00ff00ff"
DAY_S = 24 * 3600
NOW_S = 1_750_000_000.0
kafka_test = pytest.mark.kafka

Stored = tuple[str | None, str, bytes]


def edge(folder: Path, settings: Settings | None = None, device: str = "pump-7", **options: Any) -> EdgeClient:
    """Return a device; without settings of its own it has a bundle and no broker."""
    made = settings or Settings(bootstrap=NOWHERE, fleet="works", bundle=folder.parent / "bundle")
    made = made.model_copy(update={"outbox": folder / f"outbox-{device}"})
    rule = options.pop("uploads", UploadRule(share=0.0, bytes_per_day=0))
    return EdgeClient(device, made, uploads=rule, ring=folder / f"ring-{device}", **options)


@pytest.fixture
def folder(tmp_path: Path, bundle_folder: Path) -> Path:
    (tmp_path / "bundle").symlink_to(bundle_folder)
    (tmp_path / "device").mkdir()
    return tmp_path / "device"


def spaced(spacing_ms: int, count: int) -> list[int]:
    return [1_750_000_000_000 + spacing_ms * i for i in range(count)]


def waiting(path: Path) -> list[Stored]:
    """Return topic, key and value of what waits in an outbox."""
    connection = sqlite3.connect(path)
    try:
        found = connection.execute("SELECT topic, key, value FROM waiting ORDER BY row").fetchall()
    finally:
        connection.close()
    return [(topic, key.decode(), value) for topic, key, value in found]


def waiting_predictions(folder: Path) -> list[bytes]:
    return [value for topic, _, value in waiting(folder / "outbox-pump-7") if topic == "works.predictions"]


def worker_answers(bundle: Bundle, values: list[bytes], mode: str = "always") -> list[bytes]:
    """Return what a worker answers to records of `.features`."""
    records = [Incoming("works.features", 0, i, 0, b"pump-7", value, ()) for i, value in enumerate(values)]
    return [output.value for output in outputs(core(bundle, "works", mode), records)]


@pytest.mark.parametrize("mode", ["always", "observe"])
def test_a_device_gives_the_ids_and_bytes_that_a_worker_gives(mode: str, folder: Path, bundle: Bundle) -> None:
    settings = Settings(bootstrap=NOWHERE, fleet="works", bundle=folder.parent / "bundle", mode=mode)
    settings = settings.model_copy(update={"record_bytes_max": 20_000})  # some calls make several records
    calls = [windows(n, seed=n, scale=scale) for n, scale in ((1, 1.0), (7, 1.0), (40, 3.0), (300, 0.3), (1, 9.0))]
    plain = DeviceClient(
        "pump-7", settings.model_copy(update={"outbox": folder / "plain"}), session=SESSION, clock=lambda: NOW_S
    )
    for call in calls:
        plain.publish(call)
    plain.close(0)
    client = edge(folder, settings, session=SESSION, clock=lambda: NOW_S)
    published = [client.publish(call) for call in calls]
    client.close(0)
    expected = worker_answers(bundle, [value for _, _, value in waiting(folder / "plain")], mode)
    found = waiting_predictions(folder)
    assert len(found) > 10
    assert found == expected
    entries = {name: entry for value in found for name, entry in by_window(json.loads(value)).items()}
    assert list(entries) == [name for each in published for name in each.event_ids]
    answers = [each.answers for each in published if each.answers is not None and each.on_its_way]
    assert [entry["labels"] for entry in entries.values()] == [label for each in answers for label in each.labels]
    assert [entry["answered_by"] for entry in entries.values()] == [who for each in answers for who in each.answered_by]
    assert {who for each in answers for who in each.answered_by} == (
        {"source"} if mode == "observe" else {"source", "leantta"}
    )
    np.testing.assert_array_equal(
        np.concatenate([each.magnitude for each in answers]),
        np.array([entry["shift.magnitude"] for entry in entries.values()], np.float32),
    )


def test_windows_of_another_shape_are_refused_and_use_no_number(folder: Path) -> None:
    with edge(folder) as client:
        with pytest.raises(DataError, match="expected"):
            client.publish(np.zeros((2, 3, 63)))
        with pytest.raises(DataError, match="NaN"):
            client.publish(np.full((2, 3, 64), np.nan))
        assert client.next_seq == 0
        assert client.status().counts.published == 0
        client.close(0)


def test_windows_of_another_rate_are_refused_and_use_no_number(folder: Path, rated_folder: Path, rated: Bundle) -> None:
    settings = Settings(bootstrap=NOWHERE, fleet="works", bundle=rated_folder)
    with edge(folder, settings, step_samples=52) as client:
        with pytest.raises(DataError, match="sampled at 104 Hz, the model takes 52 Hz") as caught:
            client.publish(windows(4), spaced(500, 4))
        assert caught.value.reason == "wrong_rate"
        assert (client.next_seq, client.status().counts.published) == (0, 0)
        client.publish(windows(4), spaced(1000, 4))  # a refused rate is not that of the session
        unrated = replace(serve(rated, "always", 3), sampling_rate_hz=None)
        client._swap(InForce(unrated))  # as when a release brings a model that names no rate
        with pytest.raises(DataError, match="sampled at 104 Hz, earlier ones of this session at 52 Hz"):
            client.publish(windows(4), spaced(500, 4))
        client._swap(InForce(replace(unrated, sampling_rate_hz=104.0)))
        with pytest.raises(DataError, match="sampled at 52 Hz, the model takes 104 Hz"):
            client.publish(windows(4), spaced(1000, 4))
        assert client.status().counts.answered == 4
        client.close(0)


def test_a_device_flags_what_a_worker_flags(folder: Path, rated_folder: Path, rated: Bundle) -> None:
    settings = Settings(bootstrap=NOWHERE, fleet="works", bundle=rated_folder, record_bytes_max=20_000)
    calls = [(windows(30), spaced(500, 30)), (windows(30), spaced(1000, 30)), (windows(1), spaced(500, 1))]
    plain = DeviceClient("pump-7", settings.model_copy(update={"outbox": folder / "plain"}), session=SESSION)
    client = edge(folder, settings, session=SESSION)
    for call in calls:
        plain.publish(*call)
        client.publish(*call)
    plain.close(0)
    client.close(0)
    found = waiting_predictions(folder)
    assert found == worker_answers(rated, [value for _, _, value in waiting(folder / "plain")], "observe")
    records = [json.loads(value) for value in found]
    flagged = [record["seq"] + i for record in records for i in record["flags"].get("sampling_rate_implausible", [])]
    assert flagged == list(range(30))


def test_windows_that_waited_for_a_bundle_are_given_up_where_it_takes_another_rate(folder: Path, rated: Bundle) -> None:
    (folder / "trust.json").write_text(trust(fleet="works").model_dump_json())
    settings = Settings(bootstrap=NOWHERE, fleet="works", trust=folder / "trust.json", state=folder / "state")
    everything = UploadRule(share=1.0)
    with edge(folder, settings, sampling_rate_hz=104.0, session=SESSION) as client:
        assert client.publish(windows(3)).answers is None
        client.close(0)
    with edge(folder, settings, sampling_rate_hz=52.0, session="ab" * 8, uploads=everything) as client:
        assert client.publish(windows(5)).answers is None
        client._swap(InForce(serve(rated, "always")))
        wait_for(lambda: client.status().unanswered == 0, 20, "late answers")
        counts = client.status().counts
        client.close(0)
    assert (counts.unanswered_dropped, counts.answered_late) == (3, 5)
    uploaded = [json.loads(value) for topic, _, value in waiting(folder / "outbox-pump-7") if topic == "works.windows"]
    assert [(value["session"], value["sampling_rate_hz"]) for value in uploaded] == [("ab" * 8, 52.0)]


def test_a_full_outbox_still_answers_and_counts_what_it_drops(folder: Path) -> None:
    settings = Settings(bootstrap=NOWHERE, fleet="works", bundle=folder.parent / "bundle", outbox_bytes_max=2**20)
    client = edge(folder, settings, session=SESSION)
    on_its_way = []
    for _ in range(100):
        published = client.publish(windows(32))
        assert published.answers is not None
        assert len(published.answers.labels) == 32
        on_its_way.append(published.on_its_way)
    status = client.status()
    client.close(0)
    entries = [name for value in waiting_predictions(folder) for name in by_window(json.loads(value))]
    dropped = status.counts.predictions_dropped
    assert 0 < dropped == 32 * on_its_way.count(False)
    assert len(entries) == status.counts.answered == 100 * 32 - dropped
    assert status.counts.kept == status.ring_windows == 100 * 32
    reopened = edge(folder, settings)
    assert reopened.status().counts == status.counts
    reopened.close(0)


def test_uploads_give_way_before_answers_do(folder: Path) -> None:
    settings = Settings(bootstrap=NOWHERE, fleet="works", bundle=folder.parent / "bundle", outbox_bytes_max=2**20)
    client = edge(folder, settings, session=SESSION, uploads=UploadRule(share=1.0))
    while client.status().counts.predictions_dropped == 0:
        client.publish(windows(40))
    counts = client.status().counts
    client.close(0)
    topics = Counter()
    for topic, _, value in waiting(folder / "outbox-pump-7"):
        topics[topic] += len(json.loads(value).get("event_times_ms", ()))
    assert topics["works.windows"] == counts.uploaded > 0
    assert topics["works.predictions"] == counts.answered == counts.published - counts.predictions_dropped
    assert counts.uploads_dropped == counts.published - counts.uploaded > counts.predictions_dropped
    ring = WindowRing(folder / "ring-pump-7", "works/pump-7", 64 * 2**20)
    marked = [ring.uploaded(SESSION, seq) for seq in range(counts.published)]
    assert sum(marked) == counts.uploaded
    ring.close()


def test_on_a_full_disk_the_ring_gives_way_to_the_outbox(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = edge(folder)
    client.publish(windows(50))
    connection = client.outbox._store._durable
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count={pages}")  # SQLite's own words for a full disk
    freed = client._store.ring.give_way

    def give_way() -> Any:
        connection.execute(f"PRAGMA max_page_count={100 * pages}")
        return freed()

    monkeypatch.setattr(client._store.ring, "give_way", give_way)
    assert client.publish(windows(50)).on_its_way
    assert client.publish(windows(5)).on_its_way
    status = client.status()
    assert "gave way" in (status.ring_error or "")
    assert (status.counts.answered, status.counts.kept, status.counts.ring_dropped) == (105, 100, 105)
    assert status.ring_windows == 0
    assert (folder / "ring-pump-7").stat().st_size == 0
    client.close(0)


def test_a_ring_that_fails_stops_no_answer_and_is_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = edge(folder)
    client.publish(windows(20))

    def put(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(client._store.ring, "put", put)
    assert client.publish(windows(3)).on_its_way
    assert client.publish(windows(3)).on_its_way
    status = client.status()
    assert (status.counts.answered, status.counts.kept, status.counts.ring_dropped) == (26, 20, 26)
    assert "Input/output error" in (status.ring_error or "")
    client.close(0)
    small = edge(folder, device="pump-8", ring_bytes=4_200)
    assert small.publish(windows(3)).on_its_way
    assert "not one window" in (small.status().ring_error or "")
    assert small.status().counts.ring_dropped == 3
    small.close(0)


def test_the_ring_forgets_the_oldest_and_counts_them(folder: Path) -> None:
    client = edge(folder, ring_bytes=4096 + 100 * (64 + 4 * 3 * 64))
    for _ in range(15):
        client.publish(windows(10))
    status = client.status()
    assert (status.counts.kept, status.counts.overwritten, status.ring_windows) == (150, 50, 100)
    client.close(0)


def test_what_is_wrong_with_the_files_is_said_at_the_start(folder: Path) -> None:
    client = edge(folder)
    client.publish(windows(1))
    with pytest.raises(ConfigError, match="in use"):
        edge(folder)
    client.close(0)
    with pytest.raises(ConfigError, match="ACCLIMATE_TRUST"):
        edge(folder, Settings(bootstrap=NOWHERE, fleet="works", state=folder / "state"))
    other = Settings(bootstrap=NOWHERE, fleet="works", bundle=folder.parent / "bundle", outbox=folder / "another")
    with pytest.raises(ConfigError, match="works/pump-8"):
        EdgeClient("pump-8", other, ring=folder / "ring-pump-7")
    edge(folder).close(0)  # nothing was left locked


OFFLINE = """
import sys
from pathlib import Path
from acclimate.infra.settings import Settings
from acclimate.streams.device.edge import EdgeClient, UploadRule
from tests.support.models import windows
folder = Path(sys.argv[1])
now = [float(sys.argv[2])]
settings = Settings(bootstrap="127.0.0.1:1", fleet=sys.argv[3], bundle=sys.argv[4], outbox=folder / "outbox-pump-7")
rule = UploadRule(0.1, 1.0, 50_000)
client = EdgeClient("pump-7", settings, ring=folder / "ring-pump-7", clock=lambda: now[0], uploads=rule)
while True:
    now[0] += 60.0
    published = client.publish(windows(4, seed=int(now[0]), scale=2.0))
    print(published.event_ids[-1], flush=True)
"""


@kafka_test
def test_days_offline_with_a_kill_are_delivered_in_order_and_the_budget_holds(kafka: str, folder: Path) -> None:
    settings = new_fleet(kafka, bundle=folder.parent / "bundle")
    said: list[str] = []
    start = NOW_S
    for calls in (700, 500):  # 20 hours in all, one kill in the middle and one at the end
        command = [sys.executable, "-W", "ignore", "-c", OFFLINE, folder, str(start), settings.fleet, settings.bundle]
        process = subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        said += [process.stdout.readline().strip() for _ in range(calls)]
        process.send_signal(signal.SIGKILL)
        said += [line.strip() for line in process.stdout if line.endswith("\n")]
        process.wait()
        process.stdout.close()
        start += 60.0 * calls
    client = edge(folder, settings, clock=lambda: start, uploads=UploadRule(0.1, 1.0, 50_000))
    assert client.publish(windows(2)).on_its_way
    assert client.flush(60) == 0
    status = client.status()
    client.close()
    sessions: dict[str, list[int]] = {}
    for message in read_topic(settings, "predictions"):
        for name in by_window(json.loads(message.value)):
            _, session, seq = name.split("/")
            sessions.setdefault(session, []).append(int(seq))
    assert all(seqs == list(range(len(seqs))) for seqs in sessions.values())  # in order, none missing
    answered = {f"pump-7/{session}/{seq}" for session, seqs in sessions.items() for seq in seqs}
    assert set(said) <= answered
    assert status.counts.answered == status.counts.published == len(answered)
    assert status.counts.kept == len(answered)
    uploaded = list(read_topic(settings, "windows"))
    shifted = [message for message in uploaded if dict(message.headers)["x-acclimate-why"] == b"shifted"]
    sizes = [12 + len(message.value) for message in shifted]  # without the upper bound of what Kafka adds
    assert 10_000 < sum(sizes) < status.counts.uploaded_bytes <= 50_000
    assert status.counts.over_budget > 0
    seen = sum(len(json.loads(message.value)["event_times_ms"]) for message in uploaded)
    assert seen == status.counts.uploaded


@pytest.fixture
def plant(kafka: str, tmp_path: Path) -> Iterator[Fleet]:
    made_fleet = Fleet(new_fleet(kafka, partitions=2), tmp_path)
    yield made_fleet
    made_fleet.log.close()


@pytest.fixture(scope="module")
def bundles() -> list[Signed]:
    return [made(f"bundle {number}") for number in range(3)]


def predictions(settings: Settings) -> list[dict[str, Any]]:
    return [json.loads(message.value) for message in read_topic(settings, "predictions")]


@kafka_test
def test_promotions_swap_between_calls_and_every_window_is_answered_once(
    plant: Fleet, bundles: list[Signed], tmp_path: Path
) -> None:
    plant.release(bundles[0])
    with edge(tmp_path, plant.settings) as client:
        wait_for(lambda: client.status().receipt is not None, 30, "the first release")
        stop, answered = threading.Event(), []

        def publish() -> None:
            while not stop.is_set():
                published = client.publish(windows(5))
                assert published.answers is not None
                answered.append((published.event_ids[0], published.answers.receipt))

        load = threading.Thread(target=publish)
        load.start()
        try:
            for number in range(1, 5):
                plant.release(bundles[number % 3])
                wait_for(lambda epoch=number + 1: answered[-1][1].epoch == epoch, 30, f"epoch {number + 1}")
        finally:
            stop.set()
            load.join()
        assert client.flush(60) == 0
        status = client.status()
    found = predictions(plant.settings)
    epochs = [value["receipt"]["epoch"] for value in found]
    assert epochs == sorted(epochs)
    assert set(epochs) == {1, 2, 3, 4, 5}
    assert [value["seq"] for value in found] == list(range(0, status.counts.published, 5))
    assert [value["receipt"] for value in found] == [receipt.model_dump() for _, receipt in answered]
    in_use = {value["receipt"]["epoch"]: value["receipt"]["bundle"] for value in found}
    assert in_use == {n + 1: bundles[n % 3][0].digest for n in range(5)}
    assert 0 < status.answered_in_epoch < status.counts.answered


@kafka_test
def test_a_bad_release_is_refused_said_in_status_and_the_last_good_one_answers(
    plant: Fleet, bundles: list[Signed], tmp_path: Path
) -> None:
    plant.release(bundles[0])
    with edge(tmp_path, plant.settings) as client:
        wait_for(lambda: client.status().receipt is not None, 30, "the first release")
        bad, files = bundles[1]
        plant.send_files((bad, {sha: content[:-1] + b"?" for sha, content in files.items()}))
        plant.release(bundles[1])
        wait_for(lambda: client.status().refusals.get("artifact", 0) > 0, 30, "the refusal")
        published = client.publish(windows(3))
        assert published.answers is not None
        assert published.answers.receipt.bundle == bundles[0][0].digest

        def told() -> DeviceStatus | None:
            values = [m.value for m in read_topic(plant.settings, "status") if m.key == b"device/pump-7"]
            return DeviceStatus.model_validate_json(values[-1]) if values else None

        wait_for(lambda: (status := told()) is not None and "artifact" in status.refusals, 30, "the status")
        status = told()
    assert status is not None
    assert status.receipt is not None
    assert (status.receipt.epoch, status.receipt.bundle) == (1, bundles[0][0].digest)
    assert "damaged" in (status.last_refusal or "")
    offline = plant.settings.model_copy(update={"bootstrap": NOWHERE})
    again = edge(tmp_path, offline)  # it needs no broker to go on
    answers = again.publish(windows(3)).answers
    assert answers is not None
    assert answers.receipt.bundle == bundles[0][0].digest
    again.close(0)


@kafka_test
def test_windows_that_come_before_any_bundle_are_kept_and_answered_when_one_comes(
    plant: Fleet, bundles: list[Signed], tmp_path: Path
) -> None:
    room = 4096 + 200 * (64 + 4 * 3 * 64)
    client = edge(tmp_path, plant.settings, ring_bytes=room, session=SESSION)
    first = client.publish(windows(230))
    assert (first.answers, first.on_its_way) == (None, False)
    assert client.status().unanswered == 200
    client.close(0)
    with edge(tmp_path, plant.settings, ring_bytes=room, uploads=UploadRule(share=1.0)) as client:
        client.publish(windows(10, seed=1))
        assert client.status().counts.unanswered_dropped == 40
        plant.release(bundles[0])
        wait_for(lambda: client.status().unanswered == 0, 30, "late answers")
        assert client.publish(windows(1)).on_its_way
        assert client.flush(30) == 0
        counts, session = client.status().counts, client.session
    events = [name for value in predictions(plant.settings) for name in by_window(value)]
    late = [f"pump-7/{SESSION}/{seq}" for seq in range(40, 230)] + [f"pump-7/{session}/{seq}" for seq in range(11)]
    assert events == late
    assert (counts.published, counts.answered, counts.answered_late) == (241, 201, 200)
    assert counts.uploaded == 201


@kafka_test
def test_the_candidate_set_answers_the_devices_of_the_wave(plant: Fleet, bundles: list[Signed], tmp_path: Path) -> None:
    plant.release(bundles[0], bundles[1], share=0.5, salt="ab" * 8)
    from acclimate.registry.releases.release import unit_hash

    for device in ("pump-1", "pump-2", "pump-3", "pump-4"):
        state = plant.settings.model_copy(update={"state": tmp_path / device})
        with edge(tmp_path, state, device=device) as client:
            wait_for(lambda client=client: client.status().receipt is not None, 30, "the release")
            receipt = client.status().receipt
            assert receipt is not None
            expected = bundles[1] if unit_hash("ab" * 8, device) < 0.5 else bundles[0]
            assert receipt.bundle == expected[0].digest


@kafka_test
def test_requested_windows_come_once_and_missing_ones_are_counted(kafka: str, folder: Path) -> None:
    settings = new_fleet(kafka, bundle=folder.parent / "bundle")
    room = 4096 + 300 * (64 + 4 * 3 * 64)
    x = windows(400)
    rule = UploadRule(share=0.0, shifted_from=1e9)
    with edge(folder, settings, session=SESSION, ring_bytes=room, uploads=rule) as client:
        client.publish(x)
        request_windows(settings, "pump-7", SESSION, 90, 119)
        request_windows(settings, "pump-8", SESSION, 0, 399)  # not this device's
        request_windows(settings, "pump-7", "ab" * 8, 0, 4)
        wait_for(lambda: client.status().counts.asked == 35 and not client.status().requests_waiting, 30, "asked")
        counts = client.status().counts
        assert client.flush(30) == 0
    with edge(folder, settings, ring_bytes=room, uploads=rule) as client:
        request_windows(settings, "pump-7", SESSION, 398, 401)
        wait_for(lambda: client.status().counts.asked == 39 and not client.status().requests_waiting, 30, "asked")
        again = client.status().counts
        assert client.flush(30) == 0
    assert (counts.uploaded, counts.missed) == (20, 15)
    assert (again.uploaded, again.missed) == (22, 17)  # the old requests were not answered again
    found = [
        decode_features(message.key, message.value, channels=3, length=64, bytes_max=10**6)
        for message in read_topic(settings, "windows")
    ]
    assert [seq for part in found for seq in range(part.seq, part.seq + len(part.windows))] == [
        *range(100, 120),
        398,
        399,
    ]
    for part in found:
        np.testing.assert_array_equal(part.windows, x[part.seq : part.seq + len(part.windows)])


@kafka_test
def test_a_request_beyond_the_budget_waits_for_it_and_never_exceeds_it(kafka: str, folder: Path) -> None:
    settings = new_fleet(kafka, bundle=folder.parent / "bundle")
    now = [NOW_S]
    rule = UploadRule(share=0.0, shifted_from=1e9, bytes_per_day=40_000)
    with edge(folder, settings, session=SESSION, uploads=rule, clock=lambda: now[0]) as client:
        client.publish(windows(100))
        request_windows(settings, "pump-7", SESSION, 0, 29)
        wait_for(lambda: client.status().counts.uploaded > 0, 30, "the first part")
        first = client.status()
        assert first.requests_waiting == 1
        assert 15_000 < first.counts.uploaded_bytes <= 20_000
        now[0] += DAY_S
        wait_for(lambda: client.status().requests_waiting == 0, 30, "the second part")
        assert client.flush(30) == 0
        counts = client.status().counts
    sent = list(read_topic(settings, "windows"))
    assert [json.loads(message.value)["seq"] for message in sent] == [0, first.counts.uploaded]
    assert (counts.uploaded, counts.missed) == (30, 0)
    from acclimate.streams.device.outbox import OutboxRecord

    sizes = [record_bytes(OutboxRecord(m.key, m.value, tuple(m.headers))) for m in sent]
    assert sum(sizes) == counts.uploaded_bytes
    with edge(folder, settings, uploads=UploadRule(0.0, 1e9, 2_000)) as client:
        request_windows(settings, "pump-7", SESSION, 0, 29)
        wait_for(lambda: client.status().counts.missed == 30, 30, "a budget that never allows it")


@kafka_test
def test_a_device_reads_only_the_partition_of_its_own_requests(kafka: str) -> None:
    settings = new_fleet(kafka, partitions=5)
    devices = [f"pump-{number}" for number in range(12)]
    for device in devices:
        request_windows(settings, device, SESSION, 1, 2)
    where = {message.key.decode(): message.partition for message in read_topic(settings, "requests")}
    assert where == {device: partition_of(device.encode(), 5) for device in devices}
    for device in devices[:4]:
        reader = RequestReader(settings, device)
        found: list[str] = []
        while not found:
            requests, place = reader.read(None)
            found += [request.device for request in requests]
        assert found == [device]
        assert place.partition == where[device]
        opened = reader._opened
        assert opened is not None
        assert opened[0].assignment() == {opened[1]}
        assert opened[1].partition == where[device]
        reader.close()


@pytest.mark.parametrize(
    ("device", "session", "first", "last"), [("a b", SESSION, 0, 1), ("a", "1", 0, 1), ("a", SESSION, 2, 1)]
)
def test_a_request_that_no_device_can_answer_is_refused(device: str, session: str, first: int, last: int) -> None:
    with pytest.raises(DataError, match="request of windows"):
        request_windows(Settings(bootstrap=NOWHERE), device, session, first, last)


def test_one_status_waits_however_long_the_broker_is_away(folder: Path) -> None:
    client = edge(folder)
    for _ in range(3):
        client._changed.set()
        client._tell()
    client.close(0)
    keys = [key for topic, key, _ in waiting(folder / "outbox-pump-7") if topic == "works.status"]
    assert keys == ["device/pump-7"]


def test_the_budget_and_the_counts_are_those_of_the_last_stored_call_after_a_kill(folder: Path) -> None:
    rule = UploadRule(0.0, 0.0, 20_000)
    client = edge(folder, uploads=rule, clock=lambda: NOW_S)
    client.publish(windows(20))
    counts, budget = client.status().counts, client._store.memo.budget
    copy = folder / "copy"
    copy.mkdir()
    for name in ("outbox-pump-7", "outbox-pump-7-wal", "ring-pump-7"):  # what a kill would leave
        (copy / name).write_bytes((folder / name).read_bytes())
    client.close(0)
    (copy.parent / "bundle").symlink_to(folder.parent / "bundle")
    again = edge(copy, uploads=rule, clock=lambda: NOW_S)
    assert again.status().counts == counts
    assert again._store.memo.budget == budget
    assert again.status().ring_windows == 20
    again.publish(windows(20))
    assert again.status().counts.uploaded == counts.uploaded  # no restart refills it
    again.close(0)
    richer = edge(copy, uploads=UploadRule(0.0, 0.0, 10**9), clock=lambda: NOW_S)
    richer.publish(windows(1))
    assert richer.status().counts.uploaded == counts.uploaded
    richer.close(0)


def test_an_unexpected_error_beside_answering_is_said_and_answers_go_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = edge(folder)

    def read(place: object) -> None:
        raise LookupError("a bug")

    monkeypatch.setattr(client._requests, "read", read)
    wait_for(lambda: client.status().last_error is not None, 20, "the error")
    assert "a bug" in (client.status().last_error or "")
    assert client.publish(windows(2)).on_its_way
    client.close(0)
