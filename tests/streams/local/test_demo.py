"""The demo, end to end on tiny data, and what it leaves behind."""

import contextlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from acclimate.adaptation.data.simulate import FleetPlan, simulate_fleet
from acclimate.adaptation.errors import ConfigError
from acclimate.infra.errors import BrokerError
from acclimate.infra.settings import Settings
from acclimate.streams.audit.collect import present_ends
from acclimate.streams.local.demo import DemoOptions, run_demo
from acclimate.streams.local.worker_process import running_worker
from acclimate.streams.wire.topics import create_topics
from tests.support.fleet_topics import NOWHERE

KEYS = {
    "windows",
    "lost",
    "dead_letters",
    "duplicates",
    "accuracy",
    "per_device",
    "throughput_windows_per_s",
    "latency_ms",
}
TINY = FleetPlan(source_devices=2, target_devices=2, source_windows=60, target_windows=120)


@pytest.mark.kafka
def test_the_whole_story_loses_nothing_and_equals_the_offline_run(kafka: str, fleet: str, tmp_path: Path) -> None:
    said: list[str] = []
    result = run_demo(
        simulate_fleet(3, TINY),
        Settings(bootstrap=kafka, fleet=fleet),
        DemoOptions(tmp_path / "demo", seed=3, epochs=2, latency_s=1.0),
        local=False,
        notes={"target-02": "gain"},
        say=said.append,
    )
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert report == json.loads(json.dumps(result.report))
    assert report.keys() >= KEYS
    assert (report["windows"], report["lost"], report["dead_letters"], report["conflicts"]) == (240, 0, 0, 0)
    assert report["offline"]["equal"]
    assert report["offline"]["bit_equal"]
    assert report["offline"]["accuracy"] == report["accuracy"]
    assert [device["device"] for device in report["per_device"]] == ["device-target-01", "device-target-02"]
    assert report["throughput_windows_per_s"] > 0
    assert report["latency_ms"]["p50"] <= report["latency_ms"]["p99"]
    assert report["receipts"][0]["bundle"] == report["source_model"]["bundle"]
    assert result.sound
    assert {path.name for path in (tmp_path / "demo").iterdir()} >= {"report.html", "overview.svg", "ledger-all.jsonl"}
    assert "gain" in (tmp_path / "demo" / "report.html").read_text()
    assert any("training" in line for line in said)


@pytest.mark.kafka
def test_the_worker_ends_with_the_block_that_started_it(
    kafka: str, fleet: str, bundle_folder: Path, tmp_path: Path
) -> None:
    settings = Settings(bootstrap=kafka, fleet=fleet)
    create_topics(settings, partitions=1)
    with contextlib.suppress(KeyboardInterrupt), running_worker(settings, bundle_folder, tmp_path / "w.log") as worker:
        os.kill(worker.pid, 0)
        raise KeyboardInterrupt
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)
    assert present_ends(settings)  # the broker is not ours and goes on


def test_a_worker_that_cannot_start_is_quoted(tmp_path: Path) -> None:
    settings = Settings(bootstrap=NOWHERE, fleet="nobody")
    with running_worker(settings, tmp_path / "no-bundle", tmp_path / "worker.log") as worker:
        worker.guard.wait()
        with pytest.raises(BrokerError, match=r"exit code 3(.|\n)*no-bundle"):
            worker.check()


def test_without_a_target_there_is_no_demo(tmp_path: Path) -> None:
    dataset = replace(simulate_fleet(0, TINY), target=None)
    with pytest.raises(ConfigError, match="--target"):
        run_demo(dataset, Settings(bootstrap=NOWHERE), DemoOptions(tmp_path), local=False)
