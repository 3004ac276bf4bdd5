"""Workers follow signed releases under load: every promotion really swaps, and nothing fails while it does."""

import itertools
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from kafka import TopicPartition

from acclimate.infra.settings import Settings
from acclimate.streams.wire.reading import committed_reader, read_topic
from acclimate.streams.wire.topics import create_topics, topic_name
from tests.support.delivery import Ledger, Worker, stop_all, verify, wait_for
from tests.support.models import windows
from tests.support.releases import Fleet, made

pytestmark = pytest.mark.kafka


def promote_under_load(kafka: str, fleet: str, folder: Path, promotions: int) -> None:
    """Promote bundle after bundle while a thread publishes; check what answered each record."""
    settings = Settings(bootstrap=kafka, fleet=fleet)
    create_topics(settings, partitions=4)
    plant = Fleet(settings, folder)
    bundles = [made(f"bundle {number}") for number in range(3)]
    plant.release(bundles[0])
    worker = Worker(
        kafka, fleet, None, folder / "w.log", trust=plant.settings.trust, state=plant.settings.state
    ).wait_ready()
    ledger, stop = Ledger(kafka, fleet), threading.Event()

    def publish() -> None:
        x = windows(64)
        for number in itertools.count():
            if stop.is_set():
                return
            ledger.publish(f"device-{number % 7}", x[4 * (number % 16) : 4 * (number % 16) + 4])
            stop.wait(0.01)

    load = threading.Thread(target=publish)
    load.start()
    answers = _Answers(settings)
    try:
        wait_for(lambda: answers.newest_epoch() == 1, 30, "answers of epoch 1")
        for number in range(1, promotions + 1):
            plant.release(bundles[number % 3])
            epoch = plant.epoch
            wait_for(lambda epoch=epoch: answers.newest_epoch() == epoch, 30, f"answers of epoch {epoch}")
        assert _reported(plant.settings) == plant.epoch
    finally:
        answers.close()
        stop.set()
        load.join()
        ledger.flush()
    expected = ledger.events()
    wait_for(lambda: not verify(kafka, fleet, expected).lost, 60, "every event answered")
    verdict = verify(kafka, fleet, expected)
    stop_all([worker])
    ledger.close()
    plant.log.close()
    assert (verdict.lost, verdict.unknown, verdict.different, verdict.out_of_order) == (set(), set(), 0, [])
    assert not list(read_topic(settings, "dlq"))
    _check_swaps(plant, promotions)


class _Answers:
    """Look on at what was answered."""

    def __init__(self, settings: Settings) -> None:
        self._consumer = committed_reader(settings)
        self._consumer.assign([TopicPartition(topic_name(settings.fleet, "predictions"), n) for n in range(4)])
        self._consumer.seek_to_beginning()
        self._newest = 0

    def newest_epoch(self) -> int:
        for messages in self._consumer.poll(timeout_ms=100).values():
            for message in messages:
                self._newest = max(self._newest, json.loads(message.value)["receipt"]["epoch"])
        return self._newest

    def close(self) -> None:
        self._consumer.close()


def _reported(settings: Settings) -> int:
    """Return the epoch that the worker says it uses."""
    values = [m.value for m in read_topic(settings, "status") if m.key.startswith(b"worker/") and m.value]
    return int(json.loads(values[-1])["receipt"]["epoch"]) if values else 0


def _check_swaps(plant: Fleet, promotions: int) -> None:
    released = {}
    digests = {}
    for number, message in enumerate(read_topic(plant.settings, "releases"), start=1):
        released[number] = message.timestamp
    by_partition: dict[int, list[int]] = {}
    first: dict[int, int] = {}
    for message in read_topic(plant.settings, "predictions"):
        receipt = json.loads(message.value)["receipt"]
        by_partition.setdefault(message.partition, []).append(receipt["epoch"])
        first[receipt["epoch"]] = min(message.timestamp, first.get(receipt["epoch"], message.timestamp))
        digests.setdefault(receipt["epoch"], set()).add(receipt["bundle"])
    for epochs in by_partition.values():
        assert epochs == sorted(epochs)  # after the first answer of an epoch there is none of an older one
    assert set(first) == set(range(1, promotions + 2))
    assert all(len(found) == 1 for found in digests.values())
    assert all(digests[epoch] != digests[epoch + 1] for epoch in range(1, promotions + 1))
    swaps = np.array([first[epoch] - released[epoch] for epoch in range(2, promotions + 2)]) / 1000
    print(
        f"{promotions} promotions, {sum(map(len, by_partition.values()))} records answered, swap median "
        f"{np.median(swaps):.2f} s, p99 {np.quantile(swaps, 0.99):.2f} s"
    )


def test_five_promotions_in_a_row_swap_under_load(kafka: str, fleet: str, tmp_path: Path):
    promote_under_load(kafka, fleet, tmp_path, 5)


@pytest.mark.chaos
def test_twenty_five_promotions_in_a_row_swap_under_load(kafka: str, fleet: str, tmp_path: Path):
    promote_under_load(kafka, fleet, tmp_path, 25)
