"""Background programs are found and ended whatever happened to their parts, and strangers are left alone."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from acclimate.infra import background
from acclimate.infra.background import Program
from acclimate.infra.errors import StackError

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
PARENT = (
    "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid, "
    "flush=True); import time; time.sleep(600)"
)


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    made = Program(tmp_path / "stack", "sleeper")
    yield made
    made.stop()


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.02)


def test_a_later_command_finds_and_stops_it(program: Program):
    pid = program.start(SLEEPER, {"HOME": "/"}, {"port": 7})
    later = Program(program.folder, program.name)
    assert later.pids() == (pid,)
    assert later.facts() == {"port": 7}
    assert later.stop() is True
    assert later.pids() == ()
    assert later.stop() is False


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody reads the environment of a process")
def test_one_whose_environment_cannot_be_read_yet_is_not_taken_for_ended(
    program: Program, monkeypatch: pytest.MonkeyPatch
):
    true, early = background._environment, [b"", b"", b""]  # Linux shows an empty one while a program is being loaded
    monkeypatch.setattr(background, "_environment", lambda pid: early.pop() if early else true(pid))
    program.start(SLEEPER, {}, {})
    assert program.is_running()


def test_a_process_that_ignores_sigterm_is_killed(program: Program):
    program.start([sys.executable, "-c", STUBBORN], {}, {})
    until(lambda: "deaf" in program.log.read_text())
    assert program.stop(limit_s=0.3)
    assert program.pids() == ()


def test_children_of_a_killed_parent_are_ended(program: Program):
    pid = program.start([sys.executable, "-c", PARENT], {}, {})
    until(lambda: program.log.read_text().strip().isdecimal())
    os.kill(pid, signal.SIGKILL)
    until(lambda: not program.is_running())
    assert program.pids() == (int(program.log.read_text()),)
    program.stop()
    assert program.pids() == ()


def test_a_recorded_id_that_another_process_has_now_is_not_signalled(program: Program):
    stranger = subprocess.Popen(SLEEPER)
    try:
        program.folder.mkdir()
        record = {"pid": stranger.pid, "command": SLEEPER, "facts": {}}
        (program.folder / "sleeper.json").write_text(json.dumps(record))
        assert not program.is_running()
        program.stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_program_that_ends_is_reported_with_its_last_words_and_what_to_do(program: Program):
    program.start([sys.executable, "-c", "raise SystemExit('port 7 is taken')"], {}, {})
    with pytest.raises(StackError) as raised:
        program.wait(lambda: False, 60, (("is taken", "choose another"), ("", "see the log")))
    message = str(raised.value)
    assert "sleeper ended before it served" in message
    assert "port 7 is taken" in message
    assert str(program.log) in message
    assert message.endswith("What to do: choose another")


def test_a_program_that_never_serves_is_ended(program: Program):
    program.start(SLEEPER, {}, {})
    with pytest.raises(StackError, match="did not serve within 0 s"):
        program.wait(lambda: False, 0, ())
    assert program.pids() == ()


def test_the_log_of_the_run_before_is_kept(program: Program):
    for word in ("first", "second"):
        program.start([sys.executable, "-c", f"print('{word}')"], {}, {})
        until(lambda: not program.is_running())
    assert program.log.read_text() == "second\n"
    assert program.log.with_suffix(".log.1").read_text() == "first\n"


def test_a_program_that_is_not_there_and_a_damaged_record_are_said_in_one_line(program: Program):
    with pytest.raises(StackError, match="cannot be run: No such file"):
        program.start(["/nowhere/at-all"], {}, {})
    (program.folder / "sleeper.json").write_text("{")
    with pytest.raises(StackError, match="by hand and delete this file"):
        program.stop()
    (program.folder / "sleeper.json").unlink()
