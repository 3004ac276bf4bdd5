"""An agent with state on real Kafka: kills, rebalances and slow restores must leave no trace in what it says."""

import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from kafka import KafkaProducer

from acclimate.streams.wire.dead_letters import read_letters
from acclimate.streams.wire.records import Incoming
from tests.support.delivery import ROOT, wait_for
from tests.support.fleet_topics import new_fleet, read_topic
from tests.support.toy_agent import expected_outputs

pytestmark = pytest.mark.kafka

SESSION_TIMEOUT_S = 3


class Site:
    """A fleet whose records are numbers, and processes of the toy agent; ends what it started."""

    def __init__(self, kafka: str, folder: Path) -> None:
        self.settings = new_fleet(kafka, partitions=4)
        self.folder = folder
        self.processes: list[tuple[subprocess.Popen[bytes], Path]] = []
        self._producer = KafkaProducer(bootstrap_servers=kafka, linger_ms=2)
        self._numbers = iter(range(10**9))

    def __enter__(self) -> "Site":
        return self

    def __exit__(self, *_: object) -> None:
        for process, _log in self.processes:
            process.kill()
            process.wait()
        self._producer.close()

    def publish(self, records: int = 40, marker: bytes = b"") -> None:
        for _ in range(records):
            number = next(self._numbers)
            key, value = f"device-{number % 13}".encode(), b"%d %s" % (number, marker)
            self._producer.send(f"{self.settings.fleet}.features", key=key, value=value)
        self._producer.flush()

    def start(self, fault: str = "none") -> int:
        """Start a process of the agent and return its number."""
        log = self.folder / f"toy-{len(self.processes)}.log"
        values = {"bootstrap": self.settings.bootstrap, "fleet": self.settings.fleet}
        values |= {"session_timeout_s": SESSION_TIMEOUT_S, "watchdog_s": 40}
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.toy_agent", fault],
                cwd=ROOT,
                env=os.environ | {f"ACCLIMATE_{name.upper()}": str(value) for name, value in values.items()},
                stdout=file,
                stderr=file,
            )
        self.processes.append((process, log))
        return len(self.processes) - 1

    def kill(self, number: int) -> None:
        process, _ = self.processes[number]
        assert process.poll() is None, f"it ended before:\n{self.log(number)[-3000:]}"
        process.kill()
        process.wait()

    def log(self, number: int) -> str:
        return self.processes[number][1].read_text()

    def wait_log(self, number: int, pattern: str, times: int = 1) -> None:
        wait_for(lambda: len(re.findall(pattern, self.log(number))) >= times, 60, f"{pattern!r} in {number}")

    def said(self) -> dict[tuple[str, int, int], set[str]]:
        found: dict[tuple[str, int, int], set[str]] = {}
        for record in read_topic(self.settings, "predictions"):
            device, records, output, digest = json.loads(record.value)
            found.setdefault((device, records, output), set()).add(digest)
        return found

    def expected(self, without: bytes | None = None) -> dict[tuple[str, int, int], set[str]]:
        read = read_topic(self.settings)
        records = [Incoming(r.topic, r.partition, r.offset, r.timestamp, r.key, r.value, ()) for r in read]
        kept = [record for record in records if without is None or without not in record.value]
        return {name: {digest} for name, digest in expected_outputs(kept).items()}

    def wait_said(self, without: bytes | None = None) -> None:
        """Wait until all is said; what is said twice must be said alike, and nothing else may be said."""
        expected = self.expected(without)
        wait_for(lambda: self.said().keys() >= expected.keys(), 60, "every record followed by what it leads to")
        assert self.said() == expected

    def partitions(self, number: int, event: str) -> list[set[int]]:
        found = re.findall(rf"event={event} partitions=\[([0-9, ]*)\]", self.log(number))
        return [{int(text) for text in each.split(",") if text} for each in found]


@pytest.fixture
def site(kafka: str, tmp_path: Path):
    with Site(kafka, tmp_path) as made:
        yield made


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.chaos)])
def test_kills_lose_nothing_and_count_nothing_twice(site: Site, kills: int) -> None:
    rng = random.Random(kills)
    ended = threading.Event()

    def load() -> None:
        while not ended.wait(0.1):
            site.publish()

    thread = threading.Thread(target=load)
    thread.start()
    try:
        running = site.start()
        site.wait_log(running, "event=restored")
        for _ in range(kills):
            time.sleep(rng.uniform(0.2, 2.0))
            site.kill(running)
            running = site.start()
            site.wait_log(running, "event=restored")
    finally:
        ended.set()
        thread.join()
    site.wait_said()


def test_partitions_that_stay_keep_their_state_when_a_process_comes_and_goes(site: Site) -> None:
    first = site.start()
    site.wait_log(first, "event=restored")
    site.publish()
    second = site.start()
    site.wait_log(second, "event=restored")
    site.publish()
    site.wait_said()
    site.processes[second][0].terminate()
    assert site.processes[second][0].wait(20) == 0
    site.publish()
    site.wait_said()
    everything = {0, 1, 2, 3}
    moved = site.partitions(second, "restore")[0]
    assert 0 < len(moved) < 4
    assert site.partitions(first, "restore") == [everything, moved]
    assert site.partitions(first, "retain") == [set(), everything - moved, everything - moved]


@pytest.mark.parametrize("seconds", [2 * SESSION_TIMEOUT_S, pytest.param(20, marks=pytest.mark.long)])
def test_a_restore_longer_than_the_session_timeout_holds_the_records_and_causes_no_rebalance(
    site: Site, seconds: int
) -> None:
    first = site.start()
    site.wait_log(first, "event=restored")
    site.publish()
    site.wait_said()
    site.kill(first)
    site.publish()
    slow = site.start(f"slow:{seconds}")
    site.wait_log(slow, "event=restored")  # the toy refuses a record of a partition that is not restored
    site.wait_said()
    assert "came before its state" not in site.log(slow)
    assert site.partitions(slow, "retain") == [set()]  # one assignment, and no other one since
    assert "event=crash" not in site.log(slow)


def test_a_process_that_is_told_to_stop_while_it_restores_stops(site: Site) -> None:
    slow = site.start("slow:600")
    site.wait_log(slow, "event=restore ")
    site.processes[slow][0].terminate()
    assert site.processes[slow][0].wait(20) == 0


@pytest.mark.long
def test_a_bug_is_met_three_times_and_parked_by_the_fourth_process_with_the_state_of_before(site: Site) -> None:
    site.publish(60)
    site.publish(1, b"poison")
    site.publish(60)
    for attempt in range(3):
        process, _ = site.processes[site.start("bug:poison")]
        assert process.wait(60) == 70, f"attempt {attempt}"
    fourth = site.start("bug:poison")
    site.wait_said(without=b"poison")
    assert "event=parked" in site.log(fourth)
    letters = list(read_letters(site.settings))
    assert [b"poison" in letter.value for letter in letters] == [True]
