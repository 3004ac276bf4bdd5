"""The collector on real Kafka: what it reads, when it stops waiting, and what it calls lost."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kafka import KafkaProducer

from acclimate.adaptation.data.dataset import Split
from acclimate.adaptation.data.load import load
from acclimate.adaptation.errors import ConfigError
from acclimate.infra.settings import Settings
from acclimate.registry.bundles.source_bundle import Bundle
from acclimate.streams.audit.collect import collect, present_ends
from acclimate.streams.audit.join import read_ledger
from acclimate.streams.cli import main
from acclimate.streams.local.player import play
from acclimate.streams.wire.connect import kafka_python_options
from acclimate.streams.wire.records import Incoming
from acclimate.streams.wire.topics import topic_name
from tests.support.fleet_topics import new_fleet, read_topic
from tests.support.models import CHANNELS, LENGTH, core, outputs, windows

pytestmark = pytest.mark.kafka

LABELS = {row: row % 3 for row in range(100, 140)}


def recording(length: int = LENGTH) -> Split:
    """Return two streams of 20 windows: rows 100-119 of a, 120-139 of b."""
    rows = np.arange(100, 140)
    return Split(windows(40)[:, :, :length], rows % 3, np.repeat(["a", "b"], 20), rows)


def publish(settings: Settings, folder: Path, split: Split) -> Path:
    ledger = folder / "ledger.jsonl"
    play(split, settings, group_key="m", ledger=ledger, outbox_path=folder / "outbox.sqlite", windows_per_record=8)
    return ledger


def answer_all(settings: Settings, bundle: Bundle, leave_out: int | None = None, twice: int | None = None) -> None:
    """Do a worker's work without one: answer each record of the fleet but ``leave_out``, and ``twice`` two times."""
    found: Sequence[Any] = read_topic(settings)
    incoming = [Incoming(r.topic, r.partition, r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in found]
    producer = KafkaProducer(**kafka_python_options(settings), max_request_size=8_000_000)
    for number, output in enumerate(outputs(core(bundle, settings.fleet), incoming)):
        for _ in range(0 if number == leave_out else 2 if number == twice else 1):
            producer.send(output.topic, key=output.key, value=output.value, headers=list(output.headers))
    producer.close()


def test_everything_is_joined_and_a_repeat_counts_once(kafka: str, bundle: Bundle, tmp_path: Path) -> None:
    settings = new_fleet(kafka)
    split = recording()
    ledger = read_ledger(publish(settings, tmp_path, split))
    answer_all(settings, bundle, twice=1)
    seen: list[tuple[int, int]] = []
    found = collect(settings, ledger, LABELS, progress=lambda done, of: seen.append((done, of)))
    assert (found.windows, found.lost, found.duplicates, found.conflicts, found.unknown) == (40, (), 1, 0, 0)
    assert sorted(found.row.tolist()) == split.rows.tolist()
    assert found.label.tolist() == [row % 3 for row in found.row]
    assert set(zip(found.device.tolist(), (found.row < 120).tolist(), strict=True)) == {("m-a", True), ("m-b", False)}
    assert found.latency_ms.size == 40
    assert found.latency_ms.min() >= 0
    assert seen[-1] == (40, 40)
    # the same windows straight through the engine
    direct = bundle.engine().run(split.windows[found.row - 100])
    np.testing.assert_array_equal(found.source_probabilities, direct.source_probabilities)
    np.testing.assert_array_equal(found.adapted_probabilities, direct.adapted_probabilities)
    np.testing.assert_array_equal(found.magnitude, direct.magnitude)


def test_a_missing_answer_is_lost_after_the_idle_time_and_not_before(
    kafka: str, bundle: Bundle, tmp_path: Path
) -> None:
    settings = new_fleet(kafka)
    ledger = read_ledger(publish(settings, tmp_path, recording()))
    answer_all(settings, bundle, leave_out=0)
    found = collect(settings, ledger, LABELS, idle_s=1.0)
    assert len(found.lost) in (4, 8)  # records of 8, 8 and 4 windows
    assert len(found) == 40 - len(found.lost)


def test_refused_records_are_dead_letters_and_not_waited_for(kafka: str, bundle: Bundle, tmp_path: Path) -> None:
    settings = new_fleet(kafka)
    ledger = read_ledger(publish(settings, tmp_path, recording(LENGTH - 1)))
    answer_all(settings, bundle)
    found = collect(settings, ledger, LABELS, idle_s=600.0)
    assert (found.lost, found.dead_windows, found.dead_letters) == ((), 40, {"wrong_shape": 6})


def test_a_start_leaves_out_what_came_before(kafka: str, bundle: Bundle, tmp_path: Path) -> None:
    settings = new_fleet(kafka)
    producer = KafkaProducer(**kafka_python_options(settings))
    producer.send(topic_name(settings.fleet, "predictions"), key=b"x", value=b"no prediction").get(timeout=30)
    producer.close()
    starts = present_ends(settings)
    ledger = read_ledger(publish(settings, tmp_path, recording()))
    answer_all(settings, bundle)
    assert collect(settings, ledger, LABELS, starts=starts).unreadable == 0
    assert collect(settings, ledger, LABELS).unreadable == 1


def test_the_command_writes_a_report_and_exits_with_1_when_a_window_is_lost(
    kafka: str, bundle: Bundle, bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "plant.npz"
    machine = np.repeat([0, 1, 2], 20)
    np.savez(data, X=windows(60), y=np.arange(60) % 3, machine=machine)
    settings = new_fleet(kafka)
    target = load(data, source="machine=0", target="machine=1-2").target
    assert target is not None
    ledger = tmp_path / "ledger.jsonl"
    play(target, settings, group_key="machine", ledger=ledger, outbox_path=tmp_path / "outbox.sqlite")
    selection = ["--data", str(data), "--source", "machine=0", "--target", "machine=1-2", "--idle-s", "1"]
    place = ["--bootstrap", kafka, "--fleet", settings.fleet, "--ledger", str(ledger), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as ended:
        main(["collect", *place, *selection, "--json"])
    assert ended.value.code == 1
    assert json.loads(capsys.readouterr().out)["lost"] == 40

    answer_all(settings, bundle)
    with pytest.raises(SystemExit) as ended:
        main(["collect", *place, *selection, "--bundle", str(bundle_folder)])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "machine-1" in shown
    assert "Nothing was lost: 40 of 40" in shown
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["lost"], report["offline"]["equal"], report["offline"]["bit_equal"]) == (0, True, True)
    assert report["offline"]["differing_columns"] == {}


def test_a_fleet_without_topics_is_named(kafka: str) -> None:
    with pytest.raises(ConfigError, match=r"no topic nobody\.features"):
        present_ends(Settings(bootstrap=kafka, fleet="nobody"))


def test_the_models_windows_have_the_shape_that_the_recording_has() -> None:
    assert recording().windows.shape == (40, CHANNELS, LENGTH)
