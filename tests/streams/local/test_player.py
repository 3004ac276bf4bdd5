"""The fleet player: order, fairness, pace and the ledger."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from acclimate.adaptation.data.dataset import Split
from acclimate.adaptation.errors import ConfigError, DataError
from acclimate.infra.settings import Settings
from acclimate.streams.commands.fleet import command
from acclimate.streams.local.player import play, schedule
from acclimate.streams.wire.codec import decode_features
from tests.support.fleet_topics import NOWHERE, new_fleet, read_topic


def recording(**windows: int) -> Split:
    """Give a split with so many windows per group, window i filled with i, stored rows counted from 1000 downwards."""
    count = sum(windows.values())
    numbers = np.arange(count, dtype=np.float32)
    return Split(
        windows=np.broadcast_to(numbers[:, None, None], (count, 2, 3)).astype(np.float32),
        labels=np.zeros(count, dtype=np.int64),
        groups=np.repeat(np.array(list(windows)), list(windows.values())),
        rows=1000 - np.arange(count, dtype=np.int64),
    )


def ledger_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_devices_of_different_length_keep_the_same_progress_and_their_own_order() -> None:
    split = recording(a=1000, b=100, c=10)
    plan = schedule(split.streams(), 10)
    for group, total in (("a", 1000), ("b", 100), ("c", 10)):
        parts = [part for name, part in plan if name == group]
        assert sum(part.stop - part.start for part in parts) == total
        assert parts == sorted(parts, key=lambda part: part.start)
    halfway = Counter(group for group, _ in plan[: len(plan) // 2])
    assert (halfway["a"], halfway["b"]) == (50, 5)


def test_the_rate_holds_and_a_late_player_catches_up(tmp_path: Path) -> None:
    now = [100.0]
    published: list[tuple[float, int]] = []

    def sleep(seconds: float) -> None:
        now[0] += seconds

    def progress(done: int) -> None:
        published.append((now[0] - 100.0, done))
        if done == 12:
            now[0] += 1.0  # the disk hangs

    class Stopped(Exception):
        pass

    def stop_before_flush(done: int) -> None:
        progress(done)
        if done == 40:
            raise Stopped

    with pytest.raises(Stopped):
        play(
            recording(a=20, b=20),
            Settings(bootstrap=NOWHERE),
            group_key="device",
            ledger=tmp_path / "ledger",
            outbox_path=tmp_path / "outbox",
            rate_windows_per_s=10.0,
            windows_per_record=4,
            progress=stop_before_flush,
            monotonic=lambda: now[0],
            sleep=sleep,
        )
    before_hang = [(0.0, 4), (0.4, 8), (0.8, 12)]
    after_hang = [(1.8, 20), (2.0, 24), (2.4, 28), (2.8, 32), (3.2, 36), (3.6, 40)]
    assert [(round(at, 6), done) for at, done in published] == before_hang + after_hang


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"windows_per_record": 257}, "1 to 256, not 257"),
        ({"rate_windows_per_s": 0.0}, "above 0 windows per second"),
        ({"rate_windows_per_s": float("nan")}, "above 0 windows per second"),
        ({"limit": 0}, "at least 1 window"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], text: str, tmp_path: Path) -> None:
    places: dict[str, Any] = {"group_key": "device", "ledger": tmp_path / "ledger", "outbox_path": tmp_path / "outbox"}
    with pytest.raises(ConfigError, match=text):
        play(recording(a=1), Settings(bootstrap=NOWHERE), **places, **options)


def test_a_group_that_makes_no_device_id_is_refused_by_name(tmp_path: Path) -> None:
    places: dict[str, Any] = {"group_key": "who", "ledger": tmp_path / "ledger", "outbox_path": tmp_path / "outbox"}
    with pytest.raises(DataError, match="'who-a b' does not match"):
        play(recording(**{"a b": 1}), Settings(bootstrap=NOWHERE), **places)


@pytest.mark.kafka
def test_the_ledger_names_the_row_of_every_window_in_kafka(kafka: str, tmp_path: Path) -> None:
    settings = new_fleet(kafka)
    split = recording(a=50, b=7, c=21)
    sessions = iter(f"{number:016x}" for number in range(10))
    report = play(
        split,
        settings,
        group_key="device",
        ledger=tmp_path / "made" / "ledger.jsonl",
        outbox_path=tmp_path / "outbox",
        sampling_rate_hz=52.0,
        windows_per_record=4,
        about={"data": "test"},
        flush_timeout_s=30,
        session=lambda: next(sessions),
    )
    assert (report.devices, report.windows, report.records, report.delivered) == (3, 78, 13 + 2 + 6, 21)
    assert (report.refused, report.waiting) == (0, 0)
    header, *lines = ledger_lines(tmp_path / "made" / "ledger.jsonl")
    assert header == {"ledger": 1, "fleet": settings.fleet, "data": "test"}
    row_of = {(line["device"], line["session"], line["seq"]): line["rows"] for line in lines}
    seen = []
    for record in read_topic(settings):
        batch = decode_features(record.key, record.value, channels=2, length=3, bytes_max=10**6)
        assert batch.sampling_rate_hz == 52.0
        rows = row_of[batch.device, batch.session, batch.seq]
        assert batch.windows[:, 0, 0].tolist() == [1000 - row for row in rows]
        seen += rows
    assert sorted(seen) == sorted(split.rows.tolist())


def test_a_ledger_of_another_recording_is_not_continued(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    ledger.write_text('{"ledger":1,"fleet":"plant","data":"chest"}\n')
    with pytest.raises(ConfigError, match="chest"):
        play(
            recording(a=5),
            Settings(fleet="plant"),
            group_key="device",
            ledger=ledger,
            outbox_path=tmp_path / "outbox",
            about={"data": "gas"},
        )
    assert ledger.read_text().count("\n") == 1


@pytest.mark.kafka
def test_the_command_plays_a_simulated_fleet_and_prints_json(
    kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = new_fleet(kafka)
    monkeypatch.chdir(tmp_path)
    options = ["--bootstrap", kafka, "--fleet", settings.fleet, "--limit", "200", "--seed", "3", "--json"]
    result = CliRunner().invoke(command, options, catch_exceptions=False)
    printed = json.loads(result.stdout)
    assert (printed["windows"], printed["waiting"], printed["devices"]) == (200, 0, 8)
    lines = ledger_lines(tmp_path / printed["ledger"])
    assert sum(len(line["rows"]) for line in lines[1:]) == 200
    assert all(re.fullmatch(r"device-[a-z0-9-]+", line["device"]) for line in lines[1:])
    values = [json.loads(record.value) for record in read_topic(settings)]
    assert sum(len(value["event_times_ms"]) for value in values) == 200
    assert {value["sampling_rate_hz"] for value in values} == {1600.0}  # of the simulation
