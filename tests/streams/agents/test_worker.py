"""Delivery, proven on real Kafka with kills: nothing lost, duplicates equal, order kept.

The short forms run with every test; ``make chaos`` runs the long ones.
"""

import json
import random
import signal
import threading
import time

import numpy as np
import pytest
from kafka import KafkaAdminClient, KafkaProducer

from acclimate.infra.settings import load_settings
from acclimate.streams.wire.codec import FeatureBatch, encode_features
from acclimate.streams.wire.dead_letters import read_letters, redrive
from acclimate.streams.wire.topics import create_topics
from tests.support.answers import by_window
from tests.support.delivery import (
    SESSION,
    Ledger,
    Worker,
    answered,
    feature_record,
    read_topic,
    stop_all,
    verify,
    wait_for,
)
from tests.support.leaks import leaking_sockets
from tests.support.models import CHANNELS, LENGTH, windows
from tests.support.poison import POISON, Poison

pytestmark = pytest.mark.kafka


@pytest.fixture
def plant(kafka, fleet, bundle_folder, tmp_path):
    return Plant(kafka, fleet, bundle_folder, tmp_path)


class Plant:
    """A fleet with its topics, workers and ledger; ends what it started."""

    def __init__(self, bootstrap, fleet, bundle, folder, replication=1, partitions=6):
        self.bootstrap, self.fleet, self.bundle, self.folder = bootstrap, fleet, bundle, folder
        self.settings = load_settings(bootstrap=bootstrap, fleet=fleet)
        create_topics(self.settings, partitions=partitions, replication=replication)
        self.ledger = Ledger(bootstrap, fleet)
        self.workers = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        stop_all(self.workers)
        self.ledger.close()

    def worker(self, fault="none:", **settings):
        worker = Worker(
            self.bootstrap, self.fleet, self.bundle, self.folder / f"w{len(self.workers)}.log", fault, **settings
        )
        self.workers.append(worker)
        return worker

    def publish(self, records, per_record=4, devices=11, seed=0):
        x = windows(per_record * 50, seed)
        for i in range(records):
            start = per_record * (i % 50)
            self.ledger.publish(f"device-{i % devices}", x[start : start + per_record])
        self.ledger.flush()

    def wait_answered(self, limit_s=90):
        expected = self.ledger.events
        wait_for(lambda: not self.verify(expected()).lost, limit_s, "every event answered")
        return self.verify(expected())

    def verify(self, expected):
        return verify(self.bootstrap, self.fleet, expected)


def assert_clean(verdict):
    assert not verdict.lost
    assert not verdict.unknown
    assert verdict.different == 0
    assert verdict.out_of_order == []


def kill_under_load(plant, kills, records_per_s, pause_s, seed):
    """Two workers, one killed at a random moment and replaced, ``kills`` times, while a thread publishes."""
    rng = random.Random(seed)
    print(f"seed {seed}")
    running = [plant.worker(), plant.worker()]
    for worker in running:
        worker.wait_ready()
    done = threading.Event()

    def load():
        while not done.is_set():
            plant.publish(max(1, records_per_s // 10), seed=rng.randrange(1000))
            time.sleep(0.1)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        for _ in range(kills):
            time.sleep(pause_s * rng.uniform(0.5, 1.5))
            victim = rng.randrange(2)
            running[victim].kill()
            running[victim] = plant.worker().wait_ready()
    finally:
        done.set()
        thread.join()
    return plant.wait_answered()


def test_kill_nine_under_load_loses_nothing(plant):
    with plant:
        verdict = kill_under_load(plant, kills=2, records_per_s=100, pause_s=2.0, seed=11)
        assert_clean(verdict)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", [1, 2])
def test_five_kills_under_load_lose_nothing(plant, seed):
    with plant:
        verdict = kill_under_load(plant, kills=5, records_per_s=400, pause_s=6.0, seed=seed)
        print(f"events {len(verdict.entries)}, duplicates {verdict.duplicates}")
        assert_clean(verdict)


def test_a_slow_event_before_fast_ones_survives_a_kill(plant):
    # Acknowledging the fast ones would lose the slow one: faust-streaming/faust#606.
    with plant:
        plant.publish(20)
        slow = plant.worker("slow:slow-device:8").wait_ready()
        plant.wait_answered()
        plant.ledger.publish("slow-device", windows(1))
        plant.ledger.flush()
        time.sleep(0.5)
        plant.publish(100)
        time.sleep(3)  # several commit intervals
        slow.kill()
        assert any("slow-device" in event for event in plant.verify(plant.ledger.events()).lost)
        plant.worker()
        assert_clean(plant.wait_answered())


def test_a_frozen_agent_ends_the_process_within_its_watchdog_time(plant):
    with plant:
        frozen = plant.worker("freeze:frozen-device", watchdog_s=4).wait_ready()
        plant.publish(20)
        plant.wait_answered()
        plant.ledger.publish("frozen-device", windows(1))
        plant.ledger.flush()
        assert frozen.process.wait(30) == 75
        assert "event=stalled" in frozen.log.read_text()
        plant.worker()
        assert_clean(plant.wait_answered())


def test_sigterm_ends_in_ten_seconds_without_a_duplicate(plant):
    with plant:
        first = plant.worker().wait_ready()
        plant.publish(400)
        started = time.monotonic()
        assert first.terminate(limit_s=30) == 0
        assert time.monotonic() - started < 10
        plant.worker()
        verdict = plant.wait_answered()
        assert_clean(verdict)
        assert verdict.duplicates == 0


def test_shuffled_batched_and_single_delivery_agree_across_two_workers_and_a_restart(plant):
    x = windows(1000, seed=9, scale=1.5)
    device = "agreement"
    rng = np.random.default_rng(0)
    with plant:
        workers = [plant.worker(), plant.worker()]
        for worker in workers:
            worker.wait_ready()
        for size, partition in ((16, 0), (1, 1), (250, 2)):
            # explicit partitions, so that both workers see the same events
            for start in rng.permutation(range(0, 1000, size)):
                value = feature_record(device, int(start), x[start : start + size])
                plant.ledger.raw(
                    device.encode(), value, partition=partition
                ) if size > 1 else plant.ledger.producer.send(
                    f"{plant.fleet}.features", key=device.encode(), value=value, partition=partition
                )
            if size == 1:
                plant.ledger.flush()
                workers[0].kill()
                plant.worker().wait_ready()
        wait_for(lambda: answered(plant.bootstrap, plant.fleet) >= 63 + 1000 + 4, 90, "all deliveries answered")
        seen, ids = {}, {}
        for record in read_topic(plant.bootstrap, f"{plant.fleet}.predictions"):
            message = json.loads(record.value)
            assert ids.setdefault(message["output_id"], record.value) == record.value
            for name, entry in by_window(message).items():
                seen.setdefault(name, set()).add(json.dumps(entry, sort_keys=True))
        assert len(seen) == 1000
        assert all(len(forms) == 1 for forms in seen.values())


def test_every_kind_of_poison_ends_in_the_dead_letters_and_the_worker_stays(plant):
    at_the_limit = Poison("as large as the broker takes", b"pump-7", b"x" * 1_040_000, "too_large")
    poison = [*POISON(CHANNELS, LENGTH), at_the_limit]
    with plant:
        worker = plant.worker().wait_ready()
        plant.publish(50)
        sendable = [p for p in poison if len(p.value or b"") < 1_048_000]
        for item in sendable:
            plant.ledger.raw(item.key, item.value)
        packed = [p for p in poison if p not in sendable]
        assert packed
        packer = KafkaProducer(bootstrap_servers=plant.bootstrap, compression_type="gzip", max_request_size=60_000_000)
        for item in packed:
            packer.send(f"{plant.fleet}.features", key=item.key, value=item.value).get(timeout=30)
        packer.close()
        plant.publish(50)
        verdict = plant.wait_answered()
        assert_clean(verdict)
        letters = list(read_letters(plant.settings))
        assert sorted(letter.reason for letter in letters) == sorted(p.reason for p in poison)
        originals = {(p.key, p.value) for p in sendable}
        kept = {(letter.key, letter.value) for letter in letters if not letter.truncated}
        assert kept == originals
        assert worker.process.poll() is None


def test_windows_of_another_rate_are_refused_where_the_record_says_so_and_else_flagged(plant, rated_folder):
    plant.bundle = rated_folder
    x = windows(3)
    times = [1_700_000_000_000 + 500 * i for i in range(3)]  # 52 samples each: 104 Hz
    said = FeatureBatch("says-it", SESSION, 0, times, x, sampling_rate_hz=104.0)
    silent = FeatureBatch("says-nothing", SESSION, 0, times, x)
    with plant:
        plant.worker().wait_ready()
        for batch in (said, silent):
            plant.ledger.raw(batch.device.encode(), encode_features(batch))
        wait_for(lambda: answered(plant.bootstrap, plant.fleet) == 2, 60, "both answered")
        (letter,) = read_letters(plant.settings)
        assert (letter.key, letter.value, letter.reason) == (b"says-it", encode_features(said), "wrong_rate")
        assert letter.message == (
            "the windows were sampled at 104 Hz, the model takes 52 Hz (2 % at most); resample on the device, or train "
            "a model for this rate"
        )
        (record,) = read_topic(plant.bootstrap, f"{plant.fleet}.predictions")
        answer = json.loads(record.value)
        assert answer["device"] == "says-nothing"
        assert answer["flags"] == {"sampling_rate_implausible": [0, 1, 2]}


def test_a_bug_is_retried_twice_and_then_parked_with_an_alarm(plant):
    with plant:
        plant.publish(10)
        plant.ledger.publish("cursed", windows(1))
        plant.ledger.flush()
        plant.publish(10)
        for _ in range(2):
            worker = plant.worker("bug:cursed")
            assert worker.process.wait(60) == 70
            assert "event=crash" in worker.log.read_text()
        third = plant.worker("bug:cursed").wait_ready()
        wait_for(lambda: len(list(read_letters(plant.settings))) == 1, 60, "the record is parked")
        letter = next(read_letters(plant.settings))
        assert letter.reason == "bug"
        assert letter.key == b"cursed"
        assert "event=parked" in third.log.read_text()
        wait_for(lambda: len(plant.verify(plant.ledger.events()).lost) == 1, 60, "all others answered")
        assert third.terminate() == 0

        # with the bug mended, the letter can be driven again
        plant.worker().wait_ready()
        assert redrive(plant.settings, attempts_max=3).sent == 1
        assert redrive(plant.settings, attempts_max=3).sent == 0
        assert_clean(plant.wait_answered())


def test_redriving_stops_at_the_cap(plant):
    with plant:
        plant.worker().wait_ready()
        plant.ledger.raw(b"pump", b"not json")
        for attempt in range(3):
            wait_for(lambda n=attempt: len(list(read_letters(plant.settings))) == n + 1, 30, "a letter")
            done = redrive(plant.settings, attempts_max=2)
            assert (done.sent, done.parked) == ((1, 0) if attempt < 2 else (0, 1))
        assert [letter.attempt for letter in read_letters(plant.settings)] == [0, 1, 2]


def leader_killed(kafka3, plant, records):
    """Publish while the leader of a partition is killed, and bring it back."""
    plant.worker().wait_ready()
    thread = threading.Thread(target=lambda: [(plant.publish(4, seed=i), time.sleep(0.02)) for i in range(records)])
    thread.start()
    leader = leader_of(plant.bootstrap, f"{plant.fleet}.features")
    kafka3.stop_node(leader, signal.SIGKILL)
    try:
        thread.join(120)
        return plant.wait_answered(120)
    finally:
        kafka3.start_node(leader)


def leader_of(bootstrap, topic):
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        return admin.describe_topics([topic])[0]["partitions"][0]["leader_id"]
    finally:
        admin.close()


@pytest.mark.xdist_group("kafka3")
@pytest.mark.parametrize("records", [50, pytest.param(1500, marks=pytest.mark.chaos)])
def test_a_killed_leader_of_three_brokers_loses_nothing(kafka3, fleet, bundle_folder, tmp_path, records):
    with leaking_sockets(), Plant(kafka3.bootstrap, fleet, bundle_folder, tmp_path, replication=3) as plant:
        assert_clean(leader_killed(kafka3, plant, records))
