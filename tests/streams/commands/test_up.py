"""The stack on one machine: started whole, repaired in parts, stopped whole."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from acclimate.infra.background import Program
from acclimate.infra.broker_service import read_status
from acclimate.infra.errors import StackError
from acclimate.infra.mlflow_server import read_mlflow
from acclimate.infra.settings import Settings, load_settings
from acclimate.registry.trust.key_folder import init_keys, read_trust_file
from acclimate.streams.cli import main
from acclimate.streams.local.stack import Stack, start_stack, stop_stack
from acclimate.streams.wire.topics import differing_topics

# What `up` needs of the controller: that it says when it works, and ends on SIGTERM.
STAND_IN = (
    sys.executable,
    "-c",
    "import os, pathlib, time; pathlib.Path(os.environ['ACCLIMATE_READY_FILE']).touch(); time.sleep(600)",
)
BROKEN = (sys.executable, "-c", "raise SystemExit('error: no such key')")


def up(folder: Path, controller: tuple[str, ...] = STAND_IN, ports: int | None = None) -> Stack:
    return start_stack(folder, Settings(fleet="plant"), ports, ports, lambda line: None, controller)


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.05)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Stack]]:
    folder = tmp_path_factory.mktemp("stack") / "a folder"
    try:
        yield folder, up(folder, ports=0)
    finally:
        stop_stack(folder)


@pytest.mark.kafka
@pytest.mark.mlflow
@pytest.mark.xdist_group("stack")
class TestTheWholeStack:
    def test_its_variables_lead_to_a_broker_with_all_topics_and_to_keys_of_the_fleet(self, stack: tuple[Path, Stack]):
        folder, running = stack
        assert running.started == ("kafka", "mlflow", "controller")
        shell = subprocess.run(
            ["/bin/sh", "-c", '. "$1" && env', "sh", running.env_file],
            capture_output=True,
            text=True,
            check=True,
            env={},
        )
        given = dict(line.split("=", 1) for line in shell.stdout.splitlines() if line.startswith("ACCLIMATE_"))
        assert given == dict(running.variables)
        settings = load_settings(**{name.removeprefix("ACCLIMATE_").lower(): value for name, value in given.items()})
        until(lambda: differing_topics(settings) == [])  # a broker knows of a new topic up to a second later
        assert settings.trust is not None
        assert read_trust_file(settings.trust)[1].fleet == "plant"
        assert (folder / "keys" / "release.pem").stat().st_mode & 0o077 == 0

    def test_a_second_call_starts_nothing(self, stack: tuple[Path, Stack]):
        folder, running = stack
        again = up(folder)
        assert again.started == ()
        assert again.variables == running.variables

    @pytest.mark.long
    def test_a_dead_controller_alone_is_started_again(self, stack: tuple[Path, Stack]):
        folder, _ = stack
        program = Program(folder, "controller")
        os.kill(program.pids()[0], signal.SIGKILL)
        until(lambda: not program.is_running())
        assert up(folder).started == ("controller",)
        assert program.is_running()

    def test_a_controller_that_ends_is_reported_with_its_log_and_the_rest_stays(self, stack: tuple[Path, Stack]):
        folder, _ = stack
        Program(folder, "controller").stop()
        with pytest.raises(StackError, match=r"controller ended before(.|\n)*controller\.log(.|\n)*no such key"):
            up(folder, BROKEN)
        assert read_mlflow(folder / "mlflow").serving
        assert up(folder).started == ("controller",)

    def test_what_is_down_is_down(self, stack: tuple[Path, Stack], capsys: pytest.CaptureFixture[str]):
        folder, _ = stack
        until(lambda: bool(Program(folder, "controller").pids()))
        with pytest.raises(SystemExit) as ended:
            main(["down", "--data-dir", str(folder), "--json"])
        assert ended.value.code in (0, None)
        assert json.loads(capsys.readouterr().out)["stopped"] == ["controller", "mlflow", "kafka"]
        assert not read_status(folder / "broker").running
        assert not read_mlflow(folder / "mlflow").running
        assert Program(folder, "controller").pids() == ()
        assert stop_stack(folder) == ()


def test_another_fleet_s_keys_are_refused_before_anything_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    init_keys(tmp_path / "keys", "plant", (), 0, None, 0)
    with pytest.raises(SystemExit) as ended:
        main(["up", "--data-dir", str(tmp_path), "--fleet", "mill"])
    assert ended.value.code == 2
    assert "is of fleet plant" in capsys.readouterr().err
    assert not read_status(tmp_path / "broker").running


def test_nothing_to_stop_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["down", "--data-dir", str(tmp_path / "none")])
    assert ended.value.code in (0, None)
    assert "nothing runs" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()
