"""The buffer on disk between a device and Kafka, against a real broker."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from acclimate.adaptation.errors import ConfigError, DataError
from acclimate.infra.broker import LocalKafka
from acclimate.infra.settings import Settings
from acclimate.streams.device.client import DeviceClient
from acclimate.streams.device.outbox import DeliveryReport, Outbox, OutboxFull, OutboxRecord, record_bytes
from acclimate.streams.device.outbox_store import OutboxStore
from acclimate.streams.wire.connect import kafka_python_options
from acclimate.streams.wire.topics import create_topics, topic_name
from tests.support.fleet_topics import NOWHERE, elsewhere, first_arrivals, new_fleet, read_topic
from tests.support.leaks import leaking_sockets

ROOT = Path(__file__).parents[3]


def numbered(first: int, stop: int, size: int = 20, key: bytes = b"pump-1") -> list[OutboxRecord]:
    return [
        OutboxRecord(key, b"%06d" % number + b"x" * size, (("ce_id", b"%d" % number),)) for number in range(first, stop)
    ]


def numbers(records: Iterable[Any]) -> list[int]:
    """Return the numbers of `numbered` records in the order of their first arrival."""
    return list(dict.fromkeys(int(record.value[:6]) for record in records))


def nowhere() -> Settings:
    return Settings(bootstrap=NOWHERE, fleet="nowhere")


@pytest.mark.kafka
def test_records_arrive_in_order_leave_the_outbox_and_are_reported(kafka: str, tmp_path: Path) -> None:
    settings = new_fleet(kafka)
    reports: list[DeliveryReport] = []
    with Outbox(tmp_path / "outbox", settings, on_delivery=reports.append) as outbox:
        outbox.put(numbered(0, 700))
        outbox.put(numbered(700, 1000))
        assert outbox.flush(30) == 0
        stats = outbox.stats()
    records = read_topic(settings)
    assert numbers(records) == list(range(1000))
    assert (stats.waiting_bytes, stats.delivered, stats.refused, stats.last_error) == (0, 1000, 0, None)
    found = {(record.partition, record.offset, dict(record.headers)["ce_id"].decode()) for record in records}
    assert {(report.partition, report.offset, report.event_id) for report in reports} == found
    assert {(report.device, report.refused) for report in reports} == {("pump-1", None)}


@pytest.mark.kafka
def test_a_record_that_the_broker_refuses_is_put_aside_and_the_ones_behind_it_arrive_in_order(
    kafka: str, tmp_path: Path
) -> None:
    settings = new_fleet(kafka, partitions=1)
    admin = KafkaAdminClient(**kafka_python_options(settings))
    try:
        name = topic_name(settings.fleet, "features")
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, {"max.message.bytes": "20000"})])
    finally:
        admin.close()
    reports: list[DeliveryReport] = []
    large = [OutboxRecord(b"pump-2", b"%06d" % number + b"y" * 50_000, ()) for number in (900, 901)]
    good = numbered(0, 300)
    with Outbox(tmp_path / "outbox", settings, on_delivery=reports.append) as outbox:
        outbox.put([*good[:100], large[0], *good[100:150], large[1], *good[150:]])
        assert outbox.flush(60) == 0
        outbox.put(numbered(300, 310))
        assert outbox.flush(30) == 0
        assert outbox.stats().refused == 2
        aside = outbox.refused()
    assert numbers(read_topic(settings)) == list(range(310))
    assert [entry.record for entry in aside] == large
    refused = [report for report in reports if report.refused is not None]
    assert [report.device for report in refused] == ["pump-2", "pump-2"]
    assert all("MessageSizeTooLargeError" in (report.refused or "") and report.offset is None for report in refused)


@pytest.mark.kafka
def test_the_producer_stops_sending_at_once_when_it_is_told_to(kafka: str) -> None:
    """Check the private part of kafka-python that the outbox needs to keep the order after a failure."""
    settings = new_fleet(kafka)
    producer = KafkaProducer(**kafka_python_options(settings), linger_ms=60_000)
    future = producer.send(topic_name(settings.fleet, "features"), b"late", key=b"pump-1")
    producer._sender.force_close()
    producer._sender.join(30)
    assert not producer._sender.is_alive()
    assert future.failed()
    producer.close(timeout=5)
    assert read_topic(settings) == []


def test_a_record_beyond_the_limit_is_refused_before_anything_is_stored(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox", nowhere()) as outbox:
        with pytest.raises(DataError, match="at most 1000000") as caught:
            outbox.put([*numbered(0, 3), OutboxRecord(b"pump-1", b"x" * 2_000_000, ())])
        assert caught.value.reason == "too_large"
        assert outbox.stats().waiting_records == 0
        outbox.close(0)


@pytest.mark.kafka
def test_a_full_outbox_says_so_keeps_its_content_and_takes_records_again_after_draining(
    kafka: str, tmp_path: Path
) -> None:
    settings = new_fleet(kafka)
    limit = sum(map(record_bytes, numbered(100, 200)))
    outbox = Outbox(tmp_path / "outbox", elsewhere(settings), bytes_max=limit)
    outbox.put(numbered(0, 100))
    with pytest.raises(OutboxFull, match=r"100 records with \d+ bytes wait.*ACCLIMATE_OUTBOX_BYTES_MAX"):
        outbox.put(numbered(100, 101))
    assert outbox.stats().waiting_records == 100
    outbox.close(0)
    with Outbox(tmp_path / "outbox", settings, bytes_max=limit) as outbox:
        assert outbox.flush(30) == 0
        outbox.put(numbered(100, 200))
        assert outbox.flush(30) == 0
    assert numbers(read_topic(settings)) == list(range(200))


def test_a_second_program_cannot_open_an_outbox_that_is_in_use(tmp_path: Path) -> None:
    store = OutboxStore(tmp_path / "outbox", "a.features", 1000)
    with pytest.raises(ConfigError, match=f"in use by another client \\(process {os.getpid()}\\)"):
        OutboxStore(tmp_path / "outbox", "a.features", 1000)
    program = (
        "import sys, pathlib\n"
        "from acclimate.streams.device.outbox_store import OutboxStore\n"
        "from acclimate.adaptation.errors import ConfigError\n"
        "try: OutboxStore(pathlib.Path(sys.argv[1]), 'a.features', 1000)\n"
        "except ConfigError as error: sys.exit(str(error))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "outbox")]
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert "one outbox file belongs to one process" in second.stderr
    store.close()
    OutboxStore(tmp_path / "outbox", "a.features", 1000).close()


def test_records_of_another_fleet_are_not_sent_to_this_one(tmp_path: Path) -> None:
    store = OutboxStore(tmp_path / "outbox", "old.features", 1000)
    store.put(numbered(0, 1))
    store.close()
    with pytest.raises(ConfigError, match=r"holds 1 records for topic 'old\.features', not 'new\.features'"):
        OutboxStore(tmp_path / "outbox", "new.features", 1000)


@pytest.mark.parametrize("content", [b"no database, but long enough to be read as one" * 100, None])
def test_a_file_that_is_no_outbox_is_refused_and_left_as_it_is(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "outbox"
    if content is None:
        import sqlite3

        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE mine (x)")
        connection.close()
    else:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"outbox.*(not an outbox|move this one away)"):
        OutboxStore(path, "a.features", 1000)
    if content is not None:
        assert path.read_bytes() == content


OLD = """
CREATE TABLE waiting (
    row INTEGER PRIMARY KEY AUTOINCREMENT, size INTEGER NOT NULL, key BLOB NOT NULL, headers TEXT NOT NULL,
    value BLOB NOT NULL);
CREATE TABLE refused (
    row INTEGER PRIMARY KEY, reason TEXT NOT NULL, key BLOB NOT NULL, headers TEXT NOT NULL, value BLOB NOT NULL);
CREATE TABLE about (topic TEXT NOT NULL);
INSERT INTO about VALUES ('nowhere.features');
INSERT INTO waiting(size, key, headers, value) VALUES (120, x'70', '[["a", "b"]]', x'31'), (120, x'70', '[]', x'32');
INSERT INTO refused VALUES (7, 'too large', x'70', '[]', x'33');
PRAGMA user_version=1;
"""


def test_an_outbox_of_the_first_format_keeps_what_it_holds(tmp_path: Path) -> None:
    import sqlite3

    connection = sqlite3.connect(tmp_path / "outbox")
    connection.executescript(OLD)
    connection.close()
    for _ in range(2):  # the second time it is of the new format
        store = OutboxStore(tmp_path / "outbox", "nowhere.features", 10_000)
        assert store.waiting() == (2, 240)
        expected = [OutboxRecord(b"p", b"1", (("a", b"b"),)), OutboxRecord(b"p", b"2")]
        assert [stored.record for stored in store.after(0, 9)] == expected
        assert [entry.record for entry in store.refused()] == [OutboxRecord(b"p", b"3")]
        assert store.memo() is None
        store.close()


def test_the_memo_is_replaced_with_the_records_or_not_at_all(tmp_path: Path) -> None:
    store = OutboxStore(tmp_path / "outbox", "nowhere.features", 500)
    store.put(numbered(0, 2), "first")
    with pytest.raises(OutboxFull):
        store.put(numbered(2, 9), "second")
    assert (store.memo(), store.waiting()[0]) == ("first", 2)
    store.put([], "third")
    store.put(numbered(2, 3))
    store.close()
    store = OutboxStore(tmp_path / "outbox", "nowhere.features", 500)
    assert (store.memo(), store.waiting()[0]) == ("third", 3)
    store.close()


@pytest.mark.kafka
def test_records_go_to_the_topics_that_they_name_each_in_order(kafka: str, tmp_path: Path) -> None:
    settings = new_fleet(kafka)
    topics = [None, topic_name(settings.fleet, "predictions"), topic_name(settings.fleet, "labels")]
    records = [record._replace(topic=topics[place % 3]) for place, record in enumerate(numbered(0, 300))]
    reports: list[DeliveryReport] = []
    with Outbox(tmp_path / "outbox", settings, on_delivery=reports.append) as outbox:
        outbox.put(records)
        assert outbox.flush(30) == 0
    for place, suffix in enumerate(("features", "predictions", "labels")):
        assert numbers(read_topic(settings, suffix)) == list(range(place, 300, 3))
    assert Counter(report.topic for report in reports) == dict.fromkeys([outbox.topic, *topics[1:]], 100)


@pytest.mark.kafka
def test_an_exception_in_the_delivery_callback_comes_out_of_the_next_call(kafka: str, tmp_path: Path) -> None:
    settings = new_fleet(kafka)

    def broken(report: DeliveryReport) -> None:
        raise LookupError(report.event_id)

    outbox = Outbox(tmp_path / "outbox", settings, on_delivery=broken)
    outbox.put(numbered(7, 9))
    with outbox._sender.changed:
        outbox._sender.changed.wait_for(lambda: outbox._sender.crash is not None, 30)
    with pytest.raises(RuntimeError, match=r"has ended: LookupError\('7'\)") as caught:
        outbox.put(numbered(9, 10))
    assert isinstance(caught.value.__cause__, LookupError)
    with pytest.raises(RuntimeError, match="has ended"):
        outbox.close()


@pytest.mark.kafka
def test_a_missing_topic_is_waited_for_and_never_made_by_the_client(kafka: str, tmp_path: Path) -> None:
    settings = new_fleet(kafka)
    other = settings.model_copy(update={"fleet": settings.fleet + "x"})
    with Outbox(tmp_path / "outbox", other) as outbox:
        outbox.put(numbered(0, 10))
        assert outbox.flush(1.0) == 10
        admin = KafkaAdminClient(**kafka_python_options(settings))
        assert topic_name(other.fleet, "features") not in set(admin.list_topics())
        admin.close()
        create_topics(other, partitions=1, replication=1)
        assert outbox.flush(60) == 0
    assert numbers(read_topic(other)) == list(range(10))


def test_closing_without_a_broker_ends_at_once_and_keeps_the_records(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox", nowhere())
    outbox.put(numbered(0, 10))
    outbox.close(0.2)
    store = OutboxStore(tmp_path / "outbox", "nowhere.features", 10_000)
    assert [stored.record for stored in store.after(0, 100)] == numbered(0, 10)
    store.close()


@pytest.mark.kafka
def test_records_stored_before_a_kill_arrive_after_the_restart(kafka: str, tmp_path: Path) -> None:
    settings = new_fleet(kafka)
    program = (
        "import os, signal, sys; from acclimate.infra.settings import Settings\n"
        "from acclimate.streams.device.outbox import Outbox, OutboxRecord\n"
        f"outbox = Outbox(sys.argv[1], Settings(bootstrap={NOWHERE!r}, fleet={settings.fleet!r}))\n"
        "outbox.put([OutboxRecord(b'pump-1', b'%06d' % number) for number in range(50)])\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path / "outbox")], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    with Outbox(tmp_path / "outbox", settings) as outbox:
        outbox.put(numbered(50, 60))
        assert outbox.flush(30) == 0
    assert numbers(read_topic(settings)) == list(range(60))


def live_through_an_outage(tmp_path: Path, seconds: float, ending: int) -> None:
    """Publish from four devices before, during and after an outage, and expect every window, in order."""
    with LocalKafka() as broker:
        settings = new_fleet(broker.bootstrap, partitions=2)
        with Outbox(tmp_path / "outbox", settings) as outbox:
            clients = [DeviceClient(f"pump-{number}", settings, outbox=outbox) for number in range(4)]
            ended = threading.Event()

            def publish() -> None:
                while not ended.wait(0.002):
                    for client in clients:
                        client.publish([[[1.0, 2.0]]])

            publisher = threading.Thread(target=publish)
            publisher.start()
            try:
                time.sleep(0.5)
                broker.stop_node(1, ending)
                time.sleep(seconds)
                assert outbox.stats().waiting_records > 0
                broker.start_node(1)
                time.sleep(0.5)
            finally:
                ended.set()
                publisher.join()
            assert outbox.flush(60) == 0
            sent = {client.device: [(client.session, seq) for seq in range(client.next_seq)] for client in clients}
            assert first_arrivals(read_topic(settings)) == sent


@pytest.mark.kafka
def test_windows_published_while_the_broker_was_away_arrive_in_order(tmp_path: Path) -> None:
    with leaking_sockets():
        live_through_an_outage(tmp_path, 1.0, signal.SIGTERM)  # a killed broker takes 10 s to come back


@pytest.mark.chaos
def test_windows_published_in_the_minute_after_the_broker_was_killed_arrive_in_order(tmp_path: Path) -> None:
    with leaking_sockets():
        live_through_an_outage(tmp_path, 60.0, signal.SIGKILL)
