"""An alias moved in MLflow's page reaches a device; an outage of MLflow stops nothing and is made up for afterwards.

The page speaks MLflow's REST interface; so does this. Times are printed, not judged.
"""

import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from acclimate.infra.mlflow_server import MlflowStatus, read_mlflow, start_mlflow, stop_mlflow
from acclimate.registry.bundles.member import Member
from acclimate.streams.releases.receiver import Receiver
from tests.support.delivery import wait_for
from tests.support.plant import AT_ONCE, Plant

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.chaos,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),
]


def move_alias(address: str, plant: Plant, member: Member) -> None:
    """Do what a click in the page does."""
    body = {"name": member.name, "alias": "champion", "version": str(member.version)}
    request = urllib.request.Request(
        f"{address}/api/2.0/mlflow/registered-models/alias",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.status == 200


class Follower:
    """A controller and a device's receiver, each in a thread of its own."""

    def __init__(self, plant: Plant) -> None:
        self.stop = threading.Event()
        self.digest: str | None = None
        self.controller = plant.controller(AT_ONCE)
        self._receiver: Receiver[str] = Receiver(
            plant.settings, ("source",), lambda loaded: loaded.release.chosen("pump-7")["source"].digest
        )
        self._threads = [
            threading.Thread(target=self.controller.follow, args=(self.stop, 2.0)),
            threading.Thread(target=self._receiver.follow, args=(self.stop, self._changed, lambda: None)),
        ]
        for thread in self._threads:
            thread.start()

    def _changed(self, digest: str) -> None:
        self.digest = digest

    def end(self) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(60)
        self.controller.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MlflowStatus]:
    status, _ = start_mlflow(tmp_path / "mlflow", 0)
    yield status
    stop_mlflow(tmp_path / "mlflow")


def test_a_moved_alias_reaches_a_device_also_after_a_minute_without_mlflow(
    kafka: str, fleet: str, tmp_path: Path, server: MlflowStatus
):
    assert server.address is not None
    plant = Plant(kafka, fleet, tmp_path, mlflow=server.address)
    follower = Follower(plant)
    try:
        seconds = []
        for number in range(5):
            member = plant.made(f"bundle {number}")
            begun = time.monotonic()
            move_alias(server.address, plant, member)
            wait_for(lambda member=member: follower.digest == member.digest, 60, "the device has it")
            seconds.append(time.monotonic() - begun)
        print(f"alias moved over HTTP to installed on a device: {', '.join(f'{s:.1f}' for s in seconds)} s")

        last = plant.made("made before the outage")
        move_alias(server.address, plant, last)  # asked for, and MLflow is gone before anybody looks
        port = int(server.address.rpartition(":")[2])
        stop_mlflow(tmp_path / "mlflow")
        assert not read_mlflow(tmp_path / "mlflow").running
        time.sleep(60.0)
        assert all(thread.is_alive() for thread in follower._threads)
        start_mlflow(tmp_path / "mlflow", port)
        begun = time.monotonic()
        wait_for(lambda: follower.digest == last.digest, 60, "what was asked for before the outage")
        print(f"after a minute without MLflow: {time.monotonic() - begun:.1f} s from its return")
    finally:
        follower.end()
        plant.close()


def test_where_approvals_are_asked_for_the_page_changes_nothing_and_the_signature_does(
    kafka: str, fleet: str, tmp_path: Path, server: MlflowStatus
):
    assert server.address is not None
    plant = Plant(kafka, fleet, tmp_path, approvals=1, mlflow=server.address)
    follower = Follower(plant)
    try:
        first = plant.made("first")
        plant.approve(first)
        wait_for(lambda: follower.digest == first.digest, 60, "the first")
        second = plant.made("second")
        move_alias(server.address, plant, second)
        wait_for(lambda: [each.remark.about for each in plant.history().remarks] == ["alias_differs"], 60, "a report")
        time.sleep(10.0)
        assert follower.digest == first.digest
        assert len(plant.history().releases) == 1
        plant.approve(second, by="bob")
        wait_for(lambda: follower.digest == second.digest, 60, "the second")
        newest = plant.history().newest
        assert newest is not None
        assert newest.release.approved_by == ("bob",)
    finally:
        follower.end()
        plant.close()
