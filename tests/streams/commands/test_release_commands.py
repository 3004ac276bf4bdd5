"""Asking for releases from the command line, and who had what afterwards: real Kafka, real MLflow, a real controller.

Commands run in this process, which has imported MLflow already; one runs as a process of its own, as controllers do.
"""

import io
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from acclimate.registry.bundles.member import Member
from acclimate.streams.cli import main
from tests.support.delivery import wait_for
from tests.support.plant import Plant
from tests.support.signed import private

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("mlflow"), pytest.mark.filterwarnings("ignore")]


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str


class Site:
    """A plant, its files, and commands run as a person would."""

    def __init__(self, plant: Plant) -> None:
        self.plant = plant
        self.environment = {
            "ACCLIMATE_BOOTSTRAP": plant.settings.bootstrap,
            "ACCLIMATE_FLEET": plant.settings.fleet,
            "ACCLIMATE_MLFLOW": plant.settings.mlflow,
            "ACCLIMATE_TRUST": str(plant.settings.trust),
            "ACCLIMATE_RELEASE_KEY": self.key_file("release"),
            "ACCLIMATE_POLICY": str(plant.folder / "policy.toml"),
        }
        (plant.folder / "policy.toml").write_text("[rollout]\nwaves = [1.0]\nobserve_s = 0.0\n")
        self._controller: subprocess.Popen[bytes] | None = None

    def key_file(self, name: str) -> str:
        path = self.plant.folder / f"{name}.pem"
        path.write_bytes(private(name).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        path.chmod(0o600)
        return str(path)

    def run(self, *arguments: str) -> Said:
        output, errors = io.StringIO(), io.StringIO()
        with (
            patch.dict(os.environ, self.environment),
            redirect_stdout(output),
            redirect_stderr(errors),
            pytest.raises(SystemExit) as stopped,
        ):
            main(list(arguments))
        assert isinstance(stopped.value.code, int)
        return Said(stopped.value.code, output.getvalue(), errors.getvalue())

    def run_as_process(self, *arguments: str) -> Said:
        found = subprocess.run(
            [sys.executable, "-m", "acclimate.streams.cli", *arguments],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Said(found.returncode, found.stdout, found.stderr)

    def json(self, *arguments: str) -> Any:
        found = self.run(*arguments, "--json")
        assert found.returncode == 0, found.stderr
        return json.loads(found.stdout.splitlines()[-1])

    def start_controller(self) -> None:
        with (self.plant.folder / "controller.log").open("ab") as log:
            self._controller = subprocess.Popen(
                [sys.executable, "-m", "acclimate.streams.cli", "controller", "--poll", "0.2"],
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=log,
            )

    def kill_controller(self, number: int = signal.SIGKILL) -> int:
        assert self._controller is not None
        self._controller.send_signal(number)
        return self._controller.wait(30)

    def stop(self) -> None:
        if self._controller is not None and self._controller.poll() is None:
            self._controller.kill()
            self._controller.wait(30)
        self.plant.close()


@pytest.fixture
def site(kafka: str, fleet: str, tmp_path: Path) -> Iterator[Site]:
    site = Site(Plant(kafka, fleet, tmp_path))
    yield site
    site.stop()


@pytest.fixture
def strict(kafka: str, fleet: str, tmp_path: Path) -> Iterator[Site]:
    site = Site(Plant(kafka, fleet, tmp_path, approvals=1))
    yield site
    site.stop()


def moment() -> str:
    time.sleep(0.05)  # on either side of a release
    found = datetime.now(UTC).isoformat(timespec="milliseconds")
    time.sleep(0.05)
    return found


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("promotions", "returns_after"), [(3, (3,)), pytest.param(10, (5, 9), marks=pytest.mark.long)], ids=["3", "10"]
)
def test_promotions_and_returns_are_answered_for_at_every_time(
    strict: Site, promotions: int, returns_after: tuple[int, ...]
):
    """Through kills of the controller; the expected answers are written down while asking."""
    asked_by = {"ann": strict.key_file("ann"), "bob": strict.key_file("bob")}
    members: list[Member] = []
    expected: list[tuple[str, int, str, str]] = []  # time, version, by, reason
    strict.start_controller()
    for number in range(1, promotions + 1):
        member = strict.plant.made(f"bundle {number}")
        members.append(member)
        by = ("ann", "bob")[number % 2]
        reason = f"change {number}"
        if number % 3 == 0:
            strict.kill_controller()
            strict.start_controller()
        ask = ("promote", "source", str(member.version), "--reason", reason, "--key", asked_by[by], "--wait")
        found = strict.json(*ask)
        assert (found["good"], found["ended"]) == (True, True), found
        expected.append((moment(), member.version, by, reason))
        if number in returns_after:
            found = strict.json("rollback", "source", "--reason", f"undo {number}", "--key", asked_by["ann"], "--wait")
            assert found["version"] == members[-2].version
            expected.append((moment(), members[-2].version, "ann", f"undo {number}"))
    before = strict.json("history", "--at", "2020-01-01T00:00")
    assert before is None
    for at, version, by, reason in expected:
        answer = strict.json("history", "--at", at, "--device", "pump-7")
        assert answer["had"]["source"]["version"] == version
        assert (answer["asked_by"], answer["approved_by"]) == (by, [by])
        assert reason in answer["reason"] or answer["step"] == "complete"
    steps = [each["what"] for each in strict.json("history", "--last", "500")["entries"]]
    assert (steps.count("rollback"), steps.count("approved")) == (len(returns_after), promotions + len(returns_after))
    assert strict.kill_controller(signal.SIGTERM) == 0


def test_a_promotion_without_a_key_is_refused_where_approvals_are_asked_for(strict: Site):
    member = strict.plant.made("one")
    found = strict.run("promote", "source", str(member.version))
    assert found.returncode == 2
    assert "--key" in found.stderr
    found = strict.run("promote", "source", str(member.version), "--key", strict.key_file("stranger"))
    assert found.returncode == 2
    assert "approvers" in found.stderr
    assert strict.plant.catalogue.aliased("champion") == {}


@pytest.mark.long
def test_a_version_that_failed_its_gates_ends_the_wait_with_code_1_and_says_why(site: Site):
    member = site.plant.register("bad")
    site.plant.judge(member, passed=False)
    site.start_controller()
    found = site.run_as_process("promote", "source", str(member.version), "--wait", "--timeout", "60")
    assert found.returncode == 1
    assert "failed canary" in found.stdout


def test_a_version_that_does_not_exist_is_an_error_that_names_it(site: Site):
    found = site.run("promote", "source", "9")
    assert found.returncode == 4
    assert "9" in found.stderr
    assert "Traceback" not in found.stderr


def test_there_is_nothing_to_return_to_before_the_second_version(site: Site):
    found = site.run("rollback", "source")
    assert (found.returncode, "no source is in force" in found.stderr) == (3, True)


def test_two_versions_differ_in_what_they_say_of_their_training(site: Site):
    first, second = site.plant.register("one"), site.plant.register("two")
    found = site.json("diff", str(first.version), str(second.version))
    assert found["values"]["training.data"] == ["one", "two"]
    assert found["tensors"] == {}


def test_devices_lists_who_is_behind(site: Site):
    member = site.plant.made("one")
    site.start_controller()
    site.json("promote", "source", str(member.version), "--wait")
    site.plant.refuse("worker/w1", epoch=1, running=0)
    site.plant.answer("pump-7", 1, member.digest)
    site.plant.answer("pump-8", 0, member.digest)
    site.plant.flush()
    everything = site.json("devices")
    assert [row["device"] for row in everything["devices"]] == ["pump-7", "pump-8"]
    found = site.run("devices", "--behind", "--json")
    assert found.returncode == 1
    rows = json.loads(found.stdout)
    assert [row["device"] for row in rows["devices"]] == ["pump-8"]
    assert [row["name"] for row in rows["receivers"]] == ["worker/w1"]
    assert [row["mode"] for row in (*everything["receivers"], *everything["devices"])] == [
        "always",
        "observe",
        "observe",
    ]


def test_a_mode_is_asked_for_kept_by_the_next_version_shown_and_taken_back(strict: Site):
    strict.plant.made("one")
    key = ("--key", strict.key_file("ann"))
    controller = strict.plant.controller()

    def carry_out() -> None:
        while controller.turn() is not None:
            pass

    try:
        assert strict.json("promote", "source", "1", *key)["mode"] == "observe"
        carry_out()
        found = strict.run("promote", "source", "1", "--mode", "always", *key, "--wait", "--timeout", "1")
        assert (found.returncode, "not ended" in found.stderr) == (1, True)  # the version is in force, the mode is not
        carry_out()
        strict.plant.made("two")
        assert strict.json("promote", "source", "2", *key)["mode"] == "always"
        carry_out()
        back = strict.json("rollback", "source", *key)
        assert (back["version"], back["mode"]) == (1, "always")
        carry_out()
    finally:
        controller.close()
    now = strict.json("history", "--at", moment(), "--device", "pump-7")
    assert (now["stable_mode"], now["candidate_mode"], now["mode"]) == ("always", None, "always")
    entries = strict.json("history", "--last", "99")["entries"]
    assert [each["approval"]["mode"] for each in entries if "approval" in each] == ["observe", *["always"] * 3]
    assert sum("mode always" in each["text"] for each in entries if each["what"] == "start") == 2
    strict.plant.register("three")
    assert strict.json("diff", "1", "3")["values"]["mode"] == ["always", None]
    assert "mode" not in strict.json("diff", "1", "2")["values"]


def test_a_mode_is_for_sources_alone(site: Site):
    found = site.run("promote", "mgg", "1", "--mode", "always")
    assert (found.returncode, "mgg has none" in found.stderr) == (2, True)


def test_history_shows_an_approval_that_only_a_newer_version_can_carry_out(strict: Site):
    strict.plant.approve(strict.plant.register("held"), action="freeze")
    [entry] = strict.json("history", "--last", "5")["entries"]
    assert entry["text"].startswith("freeze source version 1 (")
    assert "this version does not understand it" in entry["text"]


def test_history_refuses_what_is_no_time(site: Site):
    found = site.run("history", "--at", "yesterday")
    assert found.returncode == 2
    assert "is no time" in found.stderr


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_a_controller_killed_at_any_moment_of_a_promotion_is_followed_by_one_that_ends_it(strict: Site):
    """At random times after each request, ten times; the seed is printed."""
    seed = time.time_ns() % 2**32
    print(f"seed {seed}")
    draw = random.Random(seed)
    (strict.plant.folder / "policy.toml").write_text("[rollout]\nwaves = [0.5, 1.0]\nobserve_s = 0.5\n")
    ann = strict.key_file("ann")
    for number in range(1, 11):
        member = strict.plant.made(f"bundle {number}")
        strict.start_controller()
        strict.json("promote", "source", str(member.version), "--key", ann)
        time.sleep(draw.uniform(0.0, 4.0))
        strict.kill_controller()
        strict.start_controller()
        wait_for(lambda member=member: in_force(strict) == member.digest, 60, f"version {member.version} everywhere")
        strict.kill_controller()
    history = strict.plant.history()
    epochs = [each.release.epoch for each in history.releases]
    assert epochs == list(range(1, len(epochs) + 1))
    assert [each.release.step for each in history.releases].count("complete") == 10
    assert history.passed_over == 0
    for earlier, later in itertools.pairwise(history.releases):
        assert later.release.previous == earlier.digest
    print(f"10 promotions, 20 kills, {len(epochs)} epochs in a chain")


def in_force(site: Site) -> str | None:
    """Return the digest that all devices have; None in a roll-out."""
    newest = site.plant.history().newest
    if newest is None or newest.release.candidate:
        return None
    return newest.release.stable["source"].digest
