"""What one device receives for a promotion, by the size of its fleet: prints JSON (docs/scale.md).

    python -m benchmarks.device_bytes

For each size, a fresh fleet on a real Kafka: each other device's prediction and status is in the topics. One device in
a process of its own starts from nothing (``first_start``), looks on while a new bundle is promoted in four releases
(``promotion``: three waves and the whole fleet), and looks on while nothing happens (``idle_per_hour``). Its sockets
count. ``record`` and ``artifacts`` are what was put into the topics for it; ``protocol`` is the rest.

``history``: a first start after many promotions, before and after the broker has compacted `.releases`.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kafka import KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from acclimate.adaptation.lean.lean_settings import LeanSettings
from acclimate.adaptation.lean.shift import calibrate
from acclimate.adaptation.model.nets import build
from acclimate.adaptation.model.spec import compact_spec
from acclimate.infra.broker import LocalKafka
from acclimate.infra.settings import Settings
from acclimate.registry.bundles.any_bundle import made_for, manifest_signature, read_any_bundle
from acclimate.registry.bundles.member import Member
from acclimate.registry.bundles.source_bundle import build_bundle
from acclimate.registry.releases.release import Place, Release, record_bytes, release_digest, sign_release
from acclimate.registry.trust.key_folder import TRUST_FILE, init_keys, read_trust_file
from acclimate.registry.trust.keys import read_key
from acclimate.streams.releases.release_log import ReleaseLog
from acclimate.streams.wire.messages import DeviceStatus
from acclimate.streams.wire.reading import read_topic
from acclimate.streams.wire.topics import create_topics, topic_name

CHANNELS, LENGTH, CLASSES = 3, 104, 4
PREDICTION_BYTES = 700  # of one window, about; no device reads those of others
SHARES = (0.01, 0.1, 0.5)  # of the waves; then the whole fleet
DAY_MS = 24 * 3600 * 1000
COMPACTION_LIMIT_S = 180.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, nargs="+", default=[10, 1_000, 10_000])
    parser.add_argument("--idle", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--history", type=int, default=250, metavar="PROMOTIONS", help="0 leaves that part out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name, LocalKafka() as kafka:
        rows = [measure(kafka.bootstrap, Path(name) / str(n), n, options.idle) for n in options.devices]
        result: dict[str, Any] = {"fleets": rows}
        if options.history:
            result["history"] = measure_history(kafka.bootstrap, Path(name) / "history", options.history)
    print(json.dumps(result, indent=2))


def measure(bootstrap: str, folder: Path, devices: int, idle_s: float) -> dict[str, Any]:
    """Return what a device of a fleet of this size receives, in bytes."""
    plant = Plant(Settings(bootstrap=bootstrap, fleet=f"bytes-{devices}"), folder)
    _others(plant.settings, devices)
    first, second = plant.bundle(1), plant.bundle(2)
    record = plant.release(first)
    with Device(plant, "new") as device:
        start = device.ask("until", plant.epoch)
        row: dict[str, Any] = {"devices": devices, "first_start": _parts(start, record, first.size_bytes)}
        records = [plant.release(first, second, share) for share in SHARES]
        records.append(plant.release(second))
        promotion = device.ask("until", plant.epoch)
        row["promotion"] = _parts(promotion, sum(records), second.size_bytes)
        row["record"] = records[0]
        row["idle_per_hour"] = round(device.ask("idle", idle_s) * 3600 / idle_s)
    plant.log.close()
    return row


def measure_history(bootstrap: str, folder: Path, promotions: int) -> dict[str, Any]:
    """Return what a first start receives after many promotions, before and after compaction, in bytes."""
    plant = Plant(Settings(bootstrap=bootstrap, fleet=f"bytes-history-{promotions}"), folder)
    bundles = [plant.bundle(number) for number in range(2)]
    for number in range(promotions):
        stable, candidate = bundles[number % 2], bundles[(number + 1) % 2]
        for share in SHARES:
            plant.release(stable, candidate, share)
        plant.release(candidate)
    with Device(plant, "before") as device:
        before = device.ask("until", plant.epoch)
    written = plant.epoch
    kept = _compacted(plant, bundles[0])
    with Device(plant, "after") as device:
        after = device.ask("until", plant.epoch)
    plant.log.close()
    return {
        "promotions": promotions,
        "releases_written": written,
        "first_start_before_compaction": before,
        "releases_kept": kept,
        "first_start_after_compaction": after,
    }


@dataclass(frozen=True)
class Signed:
    """A bundle as a release names it, and its files by digest."""

    member: Member
    files: dict[str, bytes]

    @property
    def size_bytes(self) -> int:
        """Return the sizes of all files together."""
        return sum(map(len, self.files.values()))


@dataclass
class Plant:
    """A fleet, its keys and its releases."""

    settings: Settings
    folder: Path
    epoch: int = 0
    places: dict[str, Place] = field(default_factory=dict)
    _previous: str | None = None

    def __post_init__(self) -> None:
        init_keys(self.folder / "keys", self.settings.fleet, (), 0, None, 0)
        self.trust, _ = read_trust_file(self.folder / "keys" / TRUST_FILE)
        create_topics(self.settings)
        self.log = ReleaseLog(self.settings)

    def bundle(self, number: int) -> Signed:
        """Make an untrained bundle; two numbers share no file but by chance."""
        torch.manual_seed(number)
        source = np.random.default_rng(number).normal(size=(300, CHANNELS, LENGTH)).astype(np.float32)
        spec = compact_spec(CHANNELS, LENGTH, CLASSES)
        model = build(spec).train()
        for _ in range(5):
            model(torch.from_numpy(source))
        model.eval()
        folder = self.folder / f"bundle-{number}"
        build_bundle(
            model,
            LeanSettings.for_layers(spec.layers),
            calibrate(model, source[:200], source[200:]),
            tuple(f"axis_{i}" for i in range(CHANNELS)),
            tuple(f"class_{i}" for i in range(CLASSES)),
            {"data": f"random numbers {number}"},
            source[:8],
            folder,
        )
        (folder / "manifest.sig").write_bytes(
            manifest_signature((folder / "manifest.json").read_bytes(), self._key("gate"))
        )
        network, made_for_source = made_for(read_any_bundle(folder, "source"))
        contents = {path.name: path.read_bytes() for path in folder.iterdir()}
        files = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        member = Member(
            name=f"{self.settings.fleet}.source",
            version=number + 1,
            files=files,
            network_sha256=network,
            source_sha256=made_for_source,
        )
        return Signed(member, {files[name]: content for name, content in contents.items()})

    def release(self, stable: Signed, candidate: Signed | None = None, share: float = 0.0) -> int:
        """Put the next epoch in force and return the size of its record in bytes."""
        used = [stable, *([candidate] if candidate else [])]
        for each in used:
            self.places |= self.log.publish_files(each.files, self.places)
        self.epoch += 1
        now_ms = time.time_ns() // 1_000_000
        release = Release(
            fleet=self.settings.fleet,
            epoch=self.epoch,
            issued_ms=now_ms,
            expires_ms=now_ms + 30 * DAY_MS,
            previous=self._previous,
            step="wave" if candidate else "complete",
            asked_by="ann",
            approved_by=("bob",),
            reason="better on the new press",
            stable={"source": stable.member},
            candidate={"source": candidate.member} if candidate else {},
            share=share,
            code_contract_version=max(each.member.code_contract_version for each in used),
            artifacts={sha: self.places[sha] for each in used for sha in each.files},
        )
        envelope = sign_release(release, self._key("release"))
        self._previous = release_digest(envelope)
        self.log.append(self.trust, envelope)
        return len(record_bytes(self.trust, envelope))

    def _key(self, role: str) -> Ed25519PrivateKey:
        return read_key(self.folder / "keys" / f"{role}.pem", None)


class Device:
    """A process of `benchmarks.counting_device` with an empty state folder."""

    def __init__(self, plant: Plant, name: str) -> None:
        trust, state = plant.folder / "keys" / TRUST_FILE, plant.folder / f"state-{name}"
        arguments = [plant.settings.bootstrap, plant.settings.fleet, str(trust), str(state)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.counting_device", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, command: str, value: float) -> int:
        """Return the bytes that it received for a command."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the device has no pipes")
        self._process.stdin.write(f"{command} {value}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the device ended; the lines above tell why")
        return int(answer)

    def __enter__(self) -> "Device":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)


def _others(settings: Settings, devices: int) -> None:
    """Put a prediction and a status of each device of the fleet into the topics."""
    status = DeviceStatus(schema_version=1, session="00ff00ff00ff00ff").model_dump_json().encode()
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap, linger_ms=5, batch_size=262_144)
    for number in range(devices):
        key = f"device-{number}".encode()
        producer.send(topic_name(settings.fleet, "predictions"), key=key, value=b"x" * PREDICTION_BYTES)
        producer.send(topic_name(settings.fleet, "status"), key=b"device/" + key, value=status)
    producer.close()


def _parts(total: int, record: int, artifacts: int) -> dict[str, int]:
    return {"total": total, "record": record, "artifacts": artifacts, "protocol": total - record - artifacts}


def _compacted(plant: Plant, bundle: Signed) -> int:
    """Let the broker compact `.releases` now instead of within the declared time; return the releases left."""
    admin = KafkaAdminClient(bootstrap_servers=plant.settings.bootstrap)
    try:
        name = topic_name(plant.settings.fleet, "releases")
        soon = {"segment.ms": "1000", "max.compaction.lag.ms": "1000"}
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=soon)])
    finally:
        admin.close()
    time.sleep(1.5)
    plant.release(bundle)  # a segment is closed by the record after it
    deadline = time.monotonic() + COMPACTION_LIMIT_S
    while True:
        kept = sum(1 for _ in read_topic(plant.settings, "releases"))
        if kept <= 3 or time.monotonic() > deadline:
            return kept
        time.sleep(2.0)


if __name__ == "__main__":
    main()
