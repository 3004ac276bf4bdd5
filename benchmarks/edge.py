"""What a device that answers itself does on this machine, and three days without a broker: prints JSON.

    python -m benchmarks.edge --bundle out/chest --data chest_har.npz

* ``floor``: the engine alone, 16 windows at a time and one by one;
* ``path``: windows to answers, receipts, ring and outbox, to a real Kafka on the same machine, following a signed
  release; windows per second until the last one was answered, and until Kafka had the last one; peak resident memory;
* ``offline``: three days of windows, one every 2 s by a simulated clock, without a broker; ``kill -9`` in the middle;
  then the broker is there. Everything is compared with what the device had said to its program.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from acclimate.infra.broker import LocalKafka
from acclimate.infra.settings import Settings
from acclimate.registry.bundles.source_bundle import read_bundle
from acclimate.streams.wire.messages import event_id
from acclimate.streams.wire.predictions import parse_prediction
from acclimate.streams.wire.reading import read_topic
from acclimate.streams.wire.topics import create_topics
from benchmarks.edge_device import Plan
from tests.support.releases import Fleet
from tests.support.signed import sign_bundle

NOWHERE = "127.0.0.1:1"
STORED = 4_096  # windows that a device process holds and publishes over and over
DAYS_S, INTERVAL_S = 3 * 24 * 3600, 2.0
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="a bundle that `acclimate train` made; gets signed")
    parser.add_argument("--data", type=Path, required=True, help="recording whose windows it takes")
    parser.add_argument("--windows", type=int, default=16_000, help="of one round of `path`")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, LocalKafka() as kafka:
        folder = Path(name)
        np.save(folder / "windows.npy", np.load(options.data)["X"][:STORED].astype(np.float32))
        plant = _released(kafka.bootstrap, options.bundle, folder)
        result = {
            "machine": {"cores": os.cpu_count()},
            "floor": _floor(options.bundle, folder / "windows.npy"),
            "path": {
                f"{per_call}_windows_per_call": _path(plant, folder, per_call, options.windows) for per_call in (16, 1)
            },
            "offline": _offline(plant, folder),
        }
    print(json.dumps(result, indent=2))


def _released(bootstrap: str, bundle: Path, folder: Path) -> Settings:
    settings = Settings(bootstrap=bootstrap, fleet="bench")
    create_topics(settings, partitions=1)
    plant = Fleet(settings, folder / "plant")
    plant.release(sign_bundle(bundle))
    plant.log.close()
    return plant.settings


def _floor(bundle: Path, windows: Path) -> dict[str, float]:
    engine, x = read_bundle(bundle).engine(), np.load(windows)
    found = {}
    for size in (16, 1):
        rates = []
        for _ in range(ROUNDS):
            count, started = 200 * size if size > 1 else 1_000, time.perf_counter()
            for start in range(0, count, size):
                engine.run(x[start : start + size])
            rates.append(count / (time.perf_counter() - started))
        found[f"{size}_windows_per_call_windows_per_s"] = round(sorted(rates)[ROUNDS // 2], 1)
    return found


def _path(plant: Settings, folder: Path, per_call: int, windows: int) -> list[dict[str, Any]]:
    rounds = []
    for number in range(ROUNDS):
        name = f"path-{per_call}-{number}"
        count = windows if per_call > 1 else windows // 4
        plan = Plan(
            _settings(plant, folder, name),
            str(folder / f"{name}.ring"),
            str(folder / "windows.npy"),
            count,
            per_call,
            0,
            0,
            True,
        )
        rounds.append(_last(list(_lines(_start(plan)))))
    return rounds


def _offline(plant: Settings, folder: Path) -> dict[str, Any]:
    before = sum(1 for _ in read_topic(plant, "predictions"))
    settings = _settings(plant, folder, "offline")
    # The release comes while there is a broker; then there is none for three days.
    plan = Plan(settings, str(folder / "offline.ring"), str(folder / "windows.npy"), 0, 16, INTERVAL_S, 0.0, True)
    list(_lines(_start(plan)))
    windows, start_s, said, runs = int(DAYS_S / INTERVAL_S), 1_750_000_000.0, [], []
    first = Plan(
        settings | {"bootstrap": NOWHERE}, plan.ring, plan.file, windows, 16, INTERVAL_S, start_s, deliver=False
    )
    process = _start(first)
    for line in _lines(process):
        said += [line["last"]] if "last" in line else []
        if len(said) == windows // 32:
            process.send_signal(signal.SIGKILL)
    rest = windows - 16 * len(said)
    second = Plan(**asdict(first) | {"windows": rest, "start_s": start_s + DAYS_S - rest * INTERVAL_S})
    for line in _lines(_start(second)):
        said += [line["last"]] if "last" in line else []
        runs.append(line)
    started = time.perf_counter()
    third = Plan(**asdict(plan) | {"start_s": start_s + DAYS_S})
    end = _last(list(_lines(_start(third))))
    expected = {event for last in said for event in _events(last, 16)}
    return {
        "days": DAYS_S / 86_400,
        "windows_said_to_be_published": len(expected),
        "kills": 1,
        "while_offline": _last(runs),
        "delivered_after_s": round(time.perf_counter() - started, 1),
        "records_waiting": end["records_waiting"],
        "counts": end["counts"],
        **_compared(plant, before, expected),
    }


def _compared(plant: Settings, before: int, expected: set[str]) -> dict[str, int]:
    found: set[str] = set()
    newest: dict[str, int] = {}
    twice = disorder = 0
    for place, message in enumerate(read_topic(plant, "predictions")):
        if place < before:
            continue
        record = parse_prediction(message.value)
        assert record is not None
        session = record.session
        for seq in range(record.seq, record.seq + len(record.labels)):
            event = event_id(record.device, session, seq)
            twice += event in found
            disorder += event not in found and seq < newest.get(session, -1)
            found.add(event)
            newest[session] = max(seq, newest.get(session, -1))
    return {
        "answers_in_kafka": len(found),
        "lost": len(expected - found),
        "not_said": len(found - expected),
        "delivered_twice": twice,
        "out_of_order": disorder,
    }


def _events(last: str, count: int) -> Iterator[str]:
    device, session, seq = last.split("/")
    return (f"{device}/{session}/{n}" for n in range(int(seq) - count + 1, int(seq) + 1))


def _settings(plant: Settings, folder: Path, name: str) -> dict[str, str]:
    return {
        "bootstrap": plant.bootstrap,
        "fleet": plant.fleet,
        "trust": str(plant.trust),
        "state": str(folder / f"{name}.state"),
        "outbox": str(folder / f"{name}.outbox"),
    }


def _start(plan: Plan) -> "subprocess.Popen[str]":
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.edge_device", json.dumps(asdict(plan))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _lines(process: "subprocess.Popen[str]") -> Iterator[dict[str, Any]]:
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.endswith("\n"):
                yield json.loads(line)


def _last(lines: list[dict[str, Any]]) -> dict[str, Any]:
    if not lines or "counts" not in lines[-1]:
        raise SystemExit("the device's process ended early")
    return lines[-1]


if __name__ == "__main__":
    main()
