"""What is in force reaches a receiver, and nothing else does: on real Kafka."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer

from acclimate.adaptation.errors import ConfigError, ContractError
from acclimate.infra.settings import Settings
from acclimate.streams.releases.receiver import Receiver
from acclimate.streams.releases.release_log import Fenced, ReleaseLog
from acclimate.streams.serving.served import InForce, Loaded, in_force_of
from acclimate.streams.wire.artifacts import PART_BYTES, ArtifactReader
from acclimate.streams.wire.connect import kafka_python_options
from acclimate.streams.wire.reading import read_topic
from acclimate.streams.wire.topics import create_topics, topic_name
from tests.support.releases import Fleet, Signed, made

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("receiver")]


@pytest.fixture
def plant(kafka: str, fleet: str, tmp_path: Path) -> Iterator[Fleet]:
    settings = Settings(bootstrap=kafka, fleet=fleet)
    create_topics(settings, partitions=2)
    made_fleet = Fleet(settings, tmp_path)
    yield made_fleet
    made_fleet.log.close()


@pytest.fixture(scope="module")
def bundles() -> list[Signed]:
    return [made(f"bundle {number}") for number in range(3)]


def digest_of(loaded: Loaded) -> str:
    return loaded.release.stable["source"].digest


def soon(looking: Receiver[str], epoch: int) -> str | None:
    """Wait until a release that is committed is seen: that is a moment later."""
    for _ in range(20):
        new = looking.poll()
        if new is not None or looking.report.epoch == epoch:
            return new
    raise AssertionError(f"epoch {epoch} did not come: {looking.report}")


def until_refused(looking: Receiver[str]) -> None:
    for _ in range(20):
        assert looking.poll() is None
        if looking.report.refusals:
            return
    raise AssertionError("nothing was refused")


opened: list[Receiver[Any]] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """Close the receivers of a test."""
    yield
    while opened:
        opened.pop().close()


def receiver(plant: Fleet, load: Callable[[Loaded], Any] = digest_of, **changes: Any) -> Receiver[Any]:
    opened.append(Receiver(plant.settings, ("source",), load, **changes))
    return opened[-1]


def test_the_newest_release_is_in_force_and_a_restart_needs_no_broker(plant: Fleet, bundles: list[Signed]):
    for bundle in bundles:
        plant.release(bundle)
    first = receiver(plant)
    assert first.resume() is None
    first.catch_up()
    while first.report.epoch < 3:
        first.poll()
    assert first.catch_up() is None  # nothing new
    assert first.report.epoch == 3
    first.close()
    offline = plant.settings.model_copy(update={"bootstrap": "127.0.0.1:1"})
    again: Receiver[str] = Receiver(offline, ("source",), digest_of)
    assert again.resume() == bundles[2][0].digest
    assert again.report.epoch == 3


def test_each_promotion_swaps_while_it_looks_on(plant: Fleet, bundles: list[Signed]):
    plant.release(bundles[0])
    looking, seen, stop = receiver(plant), [], threading.Event()
    assert soon(looking, 1) == bundles[0][0].digest
    changed = threading.Semaphore(0)

    def on_change(digest: str) -> None:
        seen.append(digest)
        changed.release()

    thread = threading.Thread(target=looking.follow, args=(stop, on_change, lambda: None))
    thread.start()
    for number in range(1, 7):
        plant.release(bundles[number % 3])
        assert changed.acquire(timeout=20)
    stop.set()
    thread.join(10)
    assert seen == [bundles[number % 3][0].digest for number in range(1, 7)]


def test_a_release_with_a_bad_artifact_is_refused_and_the_last_good_one_stays(plant: Fleet, bundles: list[Signed]):
    plant.release(bundles[0])
    looking = receiver(plant)
    assert soon(looking, 1) == bundles[0][0].digest
    bad, files = bundles[1]
    plant.send_files((bad, {sha: content[:-1] + b"?" for sha, content in files.items()}))
    plant.release(bundles[1])
    until_refused(looking)
    report = looking.report
    assert report.epoch == 1
    assert report.refusals == {"artifact": 1}
    assert "damaged" in (report.last_refusal or "")
    looking.close()
    again = receiver(plant)
    assert again.resume() == bundles[0][0].digest
    plant.release(bundles[2])
    assert soon(again, 3) == bundles[2][0].digest
    assert len(list((plant.settings.state / "bundles").iterdir())) == 1


def test_a_forged_and_a_replayed_record_change_nothing(plant: Fleet, bundles: list[Signed]):
    plant.release(bundles[0])
    old = plant.log.newest()
    plant.release(bundles[1])
    looking = receiver(plant)
    while looking.report.epoch < 2:
        looking.poll()
    producer = KafkaProducer(**kafka_python_options(plant.settings))
    for value in (old, b"noise", None):
        producer.send(topic_name(plant.settings.fleet, "releases"), key=b"x", value=value).get(10)
    producer.close()
    plant.release(bundles[2], signed_by="approver")
    for _ in range(20):  # a committed transaction is seen a moment later
        assert looking.poll() is None
        if "key" in looking.report.refusals:
            break
    assert looking.report.refusals == {"rollback": 1, "malformed": 2, "key": 1}
    assert looking.report.epoch == 2


def test_a_receiver_that_lost_its_engine_test_keeps_the_last_good_one(plant: Fleet, bundles: list[Signed]):
    plant.release(bundles[0])

    def load(loaded: Loaded) -> str:
        if loaded.release.epoch == 2:
            raise ContractError("the canary differs on this machine")
        return digest_of(loaded)

    looking = receiver(plant, load)
    assert soon(looking, 1) == bundles[0][0].digest
    plant.release(bundles[1])
    until_refused(looking)
    assert (looking.report.epoch, looking.report.refusals) == (1, {"artifact": 1})


def test_both_sets_of_a_wave_are_held(plant: Fleet, bundles: list[Signed]):
    plant.release(bundles[0], bundles[1], share=0.5, salt="ab" * 8)
    looking: Receiver[InForce] = receiver(plant, in_force_of)
    in_force = looking.catch_up() or looking.poll()
    assert in_force is not None
    served = {in_force.served(f"pump-{i}").receipt.bundle for i in range(50)}
    assert served == {bundles[0][0].digest, bundles[1][0].digest}


def test_a_mode_that_this_version_does_not_serve_is_refused_with_its_epoch_and_the_last_good_one_answers(
    plant: Fleet, bundles: list[Signed], caplog: pytest.LogCaptureFixture
):
    plant.release(bundles[0], stable_mode="always")
    looking: Receiver[InForce] = receiver(plant, in_force_of)
    in_force = looking.catch_up() or looking.poll()
    assert in_force is not None
    for count, modes in enumerate(({"stable_mode": "gated"}, {"candidate_mode": "by the moon"}), start=1):
        plant.release(bundles[0], bundles[1], share=0.5, **modes)
        for _ in range(20):
            assert looking.poll() is None
            if looking.report.refusals:
                break
        report = looking.report
        assert (report.refusals, report.refused_epoch, report.epoch) == ({"mode": count}, count + 1, 1)
        assert "update acclimate" in (report.last_refusal or "")
    looking.close()
    assert "event=mode_ignored" not in caplog.text
    plant.settings = plant.settings.model_copy(update={"mode": "always"})  # the release says another one
    again: Receiver[InForce] = receiver(plant, in_force_of)
    assert caplog.text.count("event=mode_ignored") == 1
    resumed = again.resume()
    assert resumed is not None
    assert resumed.stable.receipt.mode == "always"
    plant.release(bundles[0], bundles[0], share=0.5, salt="ab" * 8, candidate_mode="always")
    new = again.catch_up() or again.poll()
    assert new is not None
    assert {new.served(f"pump-{i}").receipt.mode for i in range(50)} == {"observe", "always"}


def test_without_a_list_of_keys_nothing_is_believed(plant: Fleet, tmp_path: Path):
    with pytest.raises(ConfigError, match="ACCLIMATE_TRUST"):
        Receiver(plant.settings.model_copy(update={"trust": None}), ("source",), digest_of)
    with pytest.raises(ContractError, match="belongs to fleet"):
        Receiver(plant.settings.model_copy(update={"fleet": "elsewhere"}), ("source",), digest_of)


def test_a_second_writer_of_releases_fences_the_first(plant: Fleet, bundles: list[Signed]):
    plant.release(bundles[0])
    with ReleaseLog(plant.settings):
        with pytest.raises(Fenced, match="another controller"):
            plant.release(bundles[1])
        values = [message.value for message in read_topic(plant.settings, "releases")]
    assert len(values) == 1


def test_large_files_travel_in_parts_and_are_found_where_their_place_is_stale(plant: Fleet):
    content = bytes(range(256)) * 12_000  # 3 MB
    places = plant.log.publish_files({"ab" * 32: content, "cd" * 32: b"small"}, {})
    large, small = places["ab" * 32], places["cd" * 32]
    assert len(large.offsets) == -(-len(content) // PART_BYTES)
    with ArtifactReader(plant.settings) as reader:
        assert reader.read("ab" * 32, large) == content
        assert reader.read("cd" * 32, small.model_copy(update={"offsets": (0,)})) == b"small"
        assert reader.read("cd" * 32, small.model_copy(update={"offsets": (10**6,)})) == b"small"
        with pytest.raises(ContractError, match="missing"):
            reader.read("ef" * 32, small)
    assert plant.log.publish_files({"cd" * 32: b"small"}, places) == {"cd" * 32: small}


def test_where_releases_are_held_back_what_runs_goes_on_and_an_alarm_is_raised_once(
    plant: Fleet, bundles: list[Signed], caplog: pytest.LogCaptureFixture
):
    release = plant.release(bundles[0])
    clock = [release.issued_ms]
    looking: Receiver[str] = receiver(plant, now_ms=lambda: clock[0])
    used, alarms, stop = [], [], threading.Event()

    def alarm() -> None:
        alarms.append(looking.report)
        clock[0] += 24 * 3600 * 1000  # and on, for days
        threading.Timer(2.0, stop.set).start()

    def on_change(digest: str) -> None:
        used.append(digest)
        clock[0] = release.expires_ms + 1

    looking.follow(stop, on_change, alarm)
    assert used == [bundles[0][0].digest]
    assert [(each.stale, each.epoch, each.refusals) for each in alarms] == [(True, 1, {})]
    assert "event=releases_stale epoch=1" in caplog.text
    assert looking.resume() == bundles[0][0].digest
