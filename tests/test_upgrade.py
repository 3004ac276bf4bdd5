"""A fleet of version 0.1 is brought to this version while it runs, part by part, with kills: nothing is lost.

Every part runs as its users start it, each version from an environment of its own. UPGRADE_S=60 makes a short run.
"""

import hashlib
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from acclimate.infra.settings import Settings, load_settings
from acclimate.registry.bundles.any_bundle import manifest_signature
from acclimate.registry.bundles.manifest import MANIFEST_FILE, SIGNATURE_FILE, Manifest, sealed, unsealed
from acclimate.registry.bundles.member import Member
from acclimate.registry.canonical import added, canonical_bytes
from acclimate.registry.releases.history import History
from acclimate.registry.releases.release import RELEASE_TYPE, Release
from acclimate.registry.trust.envelope import sign
from acclimate.registry.trust.key_folder import read_trust_file
from acclimate.streams.audit.collect import collect
from acclimate.streams.audit.join import read_ledger
from acclimate.streams.device.edge import EdgeClient
from acclimate.streams.releases.history import read_history
from acclimate.streams.releases.receiver import Receiver
from acclimate.streams.wire.messages import DeviceStatus, WorkerStatus
from acclimate.streams.wire.predictions import parse_prediction
from acclimate.streams.wire.reading import read_topic
from acclimate.streams.wire.statuses import Crashed, Running, parse_status
from acclimate.streams.wire.topics import create_topics
from tests.adaptation.model.test_train import waves
from tests.conftest import MlflowServer
from tests.support import edge_device
from tests.support.delivery import wait_for
from tests.support.old_version import Version, old_version
from tests.support.releases import Fleet, Signed
from tests.support.signed import private, sign_bundle

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.chaos,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore"),
]

SECONDS = float(os.environ.get("UPGRADE_S", "600"))
RATE = 40  # windows per second of a player, four in a record
KEPT = Path(__file__).parent / "kept" / "f03a09a"
ON_TERMINATION, FENCED, ON_INTERRUPT, KILLED = 0, 4, 130, -signal.SIGKILL
NEW = Version("new", Path(sys.executable).parent, EdgeClient.__module__, load_settings.__module__)
NO_OTHER_SETTINGS = {name: value for name, value in os.environ.items() if not name.startswith(("ACCLIMATE_", "PYTHON"))}


class Part:
    """A process of one version that must run until it is told to end."""

    def __init__(self, version: Version, command: list[str], variables: dict[str, str], log: Path) -> None:
        self.version = version
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [str(version.bin / command[0]), *command[1:]],
                cwd=log.parent,
                env=NO_OTHER_SETTINGS | {"OMP_NUM_THREADS": "1"} | variables,
                stdout=file,
                stderr=file,
            )

    def check_runs(self) -> None:
        code = self.process.poll()
        assert code is None, f"{self.log.name} ended by itself with {code}:\n{self.log.read_text()[-3000:]}"

    def end(self, number: int, expected: int) -> None:
        """Send a signal to a process that runs; check how it ends."""
        self.check_runs()
        self.process.send_signal(number)
        code = self.process.wait(60)
        assert code == expected, f"{self.log.name} ended with {code}:\n{self.log.read_text()[-3000:]}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Site:
    """A fleet whose parts run in either version; a part that is replaced keeps its folder and files."""

    def __init__(self, settings: Settings, folder: Path, **variables: object) -> None:
        self.settings = settings
        self.folder = folder
        self.parts: dict[str, Part] = {}
        self.ledgers: list[Path] = []
        given = {"bootstrap": settings.bootstrap, "fleet": settings.fleet, **variables}
        self.variables = {f"ACCLIMATE_{name.upper()}": str(value) for name, value in given.items()}

    def run(self, version: Version, *arguments: str, expected: int = 0) -> str:
        """Run a command to its end and return what it printed."""
        done = subprocess.run(
            [version.bin / "acclimate", *arguments],
            cwd=self.folder,
            env=NO_OTHER_SETTINGS | {"OMP_NUM_THREADS": "1"} | self.variables,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == expected, f"{version.name} acclimate {' '.join(arguments)}: {done.stderr[-3000:]}"
        return done.stdout

    def start(self, name: str, version: Version, command: list[str], **variables: object) -> None:
        own = {f"ACCLIMATE_{key.upper()}": str(value) for key, value in variables.items()}
        log = self.folder / f"{name}-{version.name}.log"
        self.parts[name] = Part(version, command, self.variables | own, log)

    def start_worker(self, name: str, version: Version) -> None:
        # Version 0.1 takes its mode from here, newer ones from the release, where `observe` needs no new field.
        self.start(
            name,
            version,
            ["acclimate", "worker"],
            mode="observe",
            state=self.folder / name,
            session_timeout_s=3,
            watchdog_s=60,
        )

    def replace_worker(self, name: str, version: Version, number: int, expected: int) -> None:
        """End a worker by a signal, start another one in its place, and wait until it answers."""
        self.parts[name].end(number, expected)
        self.start_worker(name, version)
        wait_for(lambda: self.epoch(name) > 0, 90, f"{name} of the {version.name} version")

    def start_controller(self, version: Version) -> None:
        self.start("controller", version, ["acclimate", "controller", "--poll", "0.5"])

    def start_player(self, name: str, version: Version, data: Path, target: str) -> None:
        """Play recordings as devices that publish; the outbox of a player that ended goes on."""
        self.ledgers.append(self.folder / f"ledger-{len(self.ledgers)}.jsonl")
        recordings = ["--data", str(data), "--source", "device=0-3", "--target", target]
        pace = ["--rate", str(RATE), "--windows-per-record", "4"]
        files = ["--ledger", str(self.ledgers[-1]), "--outbox", str(self.folder / f"{name}.sqlite")]
        self.start(name, version, ["acclimate", "fleet", *recordings, *pace, *files])

    def start_edge(self, name: str, version: Version, data: Path) -> None:
        self.ledgers.append(self.folder / f"ledger-{len(self.ledgers)}.jsonl")
        own = [version.edge, version.settings, name, str(data), str(self.ledgers[-1]), str(self.folder / f"{name}.bin")]
        self.start(
            name,
            version,
            ["python", edge_device.__file__, *own],
            mode="observe",
            state=self.folder / name,
            outbox=self.folder / f"{name}.sqlite",
        )

    def status(self, name: str) -> WorkerStatus | DeviceStatus | None:
        """Return what a worker or an edge device says that it runs."""
        part = self.parts[name]
        part.check_runs()
        found = None
        for message in read_topic(self.settings, "status"):
            said = parse_status(message.key, message.value)
            if isinstance(said, Running) and said.name.endswith((f"-{part.process.pid}", f"device/{name}")):
                found = said.status
        return found

    def epoch(self, name: str) -> int:
        status = self.status(name)
        return status.receipt.epoch if status is not None and status.receipt is not None else 0

    def refused(self, name: str, reason: str) -> int:
        """Return how many releases a receiver has refused for a reason since its start."""
        status = self.status(name)
        return status.refusals.get(reason, 0) if status is not None else 0

    def wait_epoch(self, epoch: int, *names: str) -> None:
        for name in names:
            wait_for(lambda name=name: self.epoch(name) >= epoch, 90, f"epoch {epoch} at {name}")

    def history(self) -> History:
        return read_history(self.settings, read_trust_file(self.folder / "keys" / "trust.json")[1])

    def newest(self) -> Release:
        newest = self.history().newest
        assert newest is not None
        return newest.release

    def complete(self, digest: str) -> bool:
        release = self.newest()
        return not release.candidate and release.stable["source"].digest == digest

    def stop(self) -> None:
        for part in self.parts.values():
            part.kill()


@pytest.fixture(scope="module")
def old() -> Version:
    return old_version()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return recordings of ten devices: four to train on, two to judge by, four with windows to play all the time."""
    windows, labels, groups = waves(devices=10, each=40)
    device = np.array([int(name[1:]) for name in groups])
    times = int(RATE * (SECONDS + 600) / 2 / 40) + 1  # one player plays two devices
    rows = np.concatenate([np.flatnonzero(device < 6), *[np.flatnonzero(device >= 6)] * times])
    np.savez(tmp_path / "data.npz", X=windows[rows], y=labels[rows], device=device[rows])
    return tmp_path / "data.npz"


@pytest.fixture
def site(kafka: str, mlflow_server: MlflowServer, tmp_path: Path, old: Version) -> Iterator[Site]:
    settings = Settings(bootstrap=kafka, fleet=f"t{secrets.token_hex(6)}")
    (tmp_path / "policy.toml").write_text("[rollout]\nwaves = [1.0]\nobserve_s = 3.0\n")
    keys = {f"{role}_key": tmp_path / "keys" / f"{role}.pem" for role in ("release", "gate")}
    made = Site(
        settings,
        tmp_path,
        mlflow=mlflow_server.address,
        trust=tmp_path / "keys" / "trust.json",
        policy=tmp_path / "policy.toml",
        **keys,
    )
    made.run(old, "keys", "init", "--fleet", settings.fleet)
    # Whatever a shell runs in the background ignores interrupts, and so would the players.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield made
    made.stop()


def register(site: Site, version: Version, data: Path, seed: int) -> tuple[str, str]:
    """Train a bundle and register it, both by one version; return its number in MLflow and its digest."""
    bundle = str(site.folder / f"bundle-{seed}")
    rows = ["--data", str(data), "--source", "device=0-3"]
    quick = ["--augment", "none", "--epochs", "2", "--threads", "1", "--seed", str(seed)]
    trained = json.loads(site.run(version, "train", *rows, *quick, "--out", bundle, "--json"))
    judged = ["--validation", str(data), "--where", "device=4-5", "--force", "a rehearsal"]
    said = json.loads(site.run(version, "register", bundle, *judged, "--json").splitlines()[-1])
    return str(said["version"]), trained["digest"]


def test_a_fleet_of_version_0_1_is_upgraded_under_load_and_loses_nothing(site: Site, data: Path, old: Version):
    seed = time.time_ns() % 2**32
    print(f"seed {seed}, {SECONDS:.0f} s of load")
    draw = random.Random(seed)
    kills: Counter[str] = Counter()

    def pause() -> None:
        """Let the load go on for a seventh of the time, and kill a worker at a random moment of it."""
        end = time.monotonic() + SECONDS / 7
        time.sleep(draw.uniform(0.1, 0.6) * SECONDS / 7)
        name = draw.choice(("worker-a", "worker-b"))
        version = site.parts[name].version
        site.replace_worker(name, version, signal.SIGKILL, KILLED)
        kills[version.name] += 1
        time.sleep(max(0.0, end - time.monotonic()))

    # Version 0.1 alone.
    first, first_digest = register(site, old, data, seed=1)
    site.start_controller(old)
    site.start_worker("worker-a", old)
    site.start_worker("worker-b", old)
    site.run(old, "promote", "source", first, "--reason", "the first", "--wait", "--timeout", "90")
    site.start_edge("edge-1", old, data)
    site.start_player("player-a", old, data, "device=6-7")
    site.start_player("player-b", old, data, "device=8-9")
    site.wait_epoch(1, "worker-a", "worker-b", "edge-1")
    second, second_digest = register(site, old, data, seed=2)
    pause()

    # First controller and readers: a receiver of this version takes what the old controller signed, a renewal by the
    # new one reaches every old receiver, and so does a promotion.
    trusting = site.settings.model_copy(
        update={"trust": site.folder / "keys" / "trust.json", "state": site.folder / "receiver"}
    )
    reader: Receiver[str] = Receiver(trusting, ("source",), lambda loaded: loaded.release.stable["source"].digest)
    assert reader.catch_up() == first_digest
    reader.close()
    site.parts["former"] = site.parts.pop("controller")
    site.start_controller(NEW)
    assert site.parts["former"].process.wait(60) == FENCED
    before = site.newest().epoch
    site.run(NEW, "keys", "add", "agent", "--owner", "second")  # a new list of keys reaches receivers by a renewal
    wait_for(lambda: site.newest().step == "renew", 60, "a renewal")
    assert site.newest().epoch == before + 1
    site.wait_epoch(before + 1, "worker-a", "worker-b", "edge-1")
    site.run(NEW, "promote", "source", second, "--reason", "the second", "--wait", "--timeout", "90")
    assert site.complete(second_digest)
    site.wait_epoch(site.newest().epoch, "worker-a", "worker-b", "edge-1")
    pause()

    # Then the workers; between the two, a return, and a bundle of this version.
    site.replace_worker("worker-a", NEW, signal.SIGTERM, ON_TERMINATION)
    pause()
    site.run(NEW, "rollback", "source", "--reason", "a rehearsal", "--wait", "--timeout", "90")
    assert site.complete(first_digest)
    site.wait_epoch(site.newest().epoch, "worker-a", "worker-b", "edge-1")
    third, _ = register(site, NEW, data, seed=3)
    offered = site.newest().epoch + 1
    site.run(NEW, "promote", "source", third, "--reason", "too early")
    site.wait_epoch(offered, "worker-a")
    for name in ("worker-b", "edge-1"):
        wait_for(lambda name=name: site.refused(name, "malformed"), 90, f"a refusal by {name}")
        assert site.epoch(name) == offered - 1
    site.run(NEW, "rollback", "source", "--reason", "it was too early", "--wait", "--timeout", "90")
    assert site.complete(first_digest)
    site.wait_epoch(site.newest().epoch, "worker-a", "worker-b", "edge-1")
    pause()
    site.replace_worker("worker-b", NEW, signal.SIGTERM, ON_TERMINATION)

    # At last the devices; one player is killed, and its successor sends what it left.
    site.parts["player-a"].end(signal.SIGKILL, KILLED)
    site.start_player("player-a", NEW, data, "device=6-7")
    pause()
    site.parts["player-b"].end(signal.SIGINT, ON_INTERRUPT)
    site.start_player("player-b", NEW, data, "device=8-9")
    site.parts["edge-1"].end(signal.SIGTERM, ON_TERMINATION)
    site.start_edge("edge-1", NEW, data)
    pause()
    site.wait_epoch(site.newest().epoch, "worker-a", "worker-b", "edge-1")

    fourth, fourth_digest = register(site, NEW, data, seed=4)
    site.run(NEW, "promote", "source", fourth, "--reason", "the fourth", "--wait", "--timeout", "90")
    assert site.complete(fourth_digest)
    site.wait_epoch(site.newest().epoch, "worker-a", "worker-b", "edge-1")

    # And all the way back: first to a bundle that version 0.1 made, then the parts, in reverse order.
    site.run(NEW, "rollback", "source", "--reason", "a return", "--wait", "--timeout", "90")
    assert site.complete(first_digest)
    site.wait_epoch(site.newest().epoch, "worker-a", "worker-b", "edge-1")
    site.parts["player-a"].end(signal.SIGINT, ON_INTERRUPT)
    site.start_player("player-a", old, data, "device=6-7")
    site.parts["edge-1"].end(signal.SIGTERM, ON_TERMINATION)
    site.start_edge("edge-1", old, data)
    site.replace_worker("worker-a", old, signal.SIGTERM, ON_TERMINATION)
    site.replace_worker("worker-b", old, signal.SIGTERM, ON_TERMINATION)
    site.parts["controller"].end(signal.SIGTERM, ON_TERMINATION)
    site.start_controller(old)
    site.run(old, "promote", "source", second, "--reason", "again", "--wait", "--timeout", "90")
    assert site.complete(second_digest)
    site.wait_epoch(site.newest().epoch, "worker-a", "worker-b", "edge-1")
    pause()
    for name in ("player-a", "player-b"):
        site.parts[name].end(signal.SIGINT, ON_INTERRUPT)
    site.parts["edge-1"].end(signal.SIGTERM, ON_TERMINATION)
    check_everything(site, data)
    for name in ("worker-a", "worker-b", "controller"):
        site.parts[name].end(signal.SIGTERM, ON_TERMINATION)
    print(f"kill -9 of workers: {dict(kills)}")


def check_everything(site: Site, data: Path) -> None:
    ledger = [record for path in site.ledgers for record in read_ledger(path)]
    rows = len(np.load(data)["y"])
    joined = collect(site.settings, ledger, dict.fromkeys(range(rows), 0), idle_s=60.0)
    assert (joined.lost, joined.dead_letters, joined.foreign_letters) == ((), {}, 0)
    assert (joined.conflicts, joined.unreadable) == (0, 0)
    assert len(joined) == joined.windows == sum(len(record.rows) for record in ledger)
    # The player that was killed may have published one batch, of up to 64 records, that its ledger does not name yet.
    assert joined.unknown <= 64 * 4
    releases = {each.release.epoch: each.release for each in site.history().releases}
    formats: Counter[int] = Counter()
    epochs: Counter[int] = Counter()
    for message in read_topic(site.settings, "predictions"):
        record = parse_prediction(message.value)
        assert record is not None
        assert record.receipt.bundle == releases[record.receipt.epoch].chosen(record.device)["source"].digest
        formats[json.loads(message.value)["schema_version"]] += 1
        epochs[record.receipt.epoch] += 1
    assert set(formats) == {1, 2}
    crashes = [
        said
        for message in read_topic(site.settings, "status")
        if isinstance(said := parse_status(message.key, message.value), Crashed)
    ]
    assert crashes == []
    steps = {epoch: release.step for epoch, release in sorted(releases.items())}
    print(
        f"{joined.windows} windows published, {len(joined)} answered, {joined.duplicates} records answered twice, "
        f"{joined.reanswered} windows by two bundles, records by version of the format {dict(formats)}\n"
        f"steps {steps}, records answered by epoch {dict(sorted(epochs.items()))}"
    )


class Later(Release):
    """A release with a field that version 0.1 does not know; left out at its default."""

    speed: str = added("slow")


def test_a_worker_of_version_0_1_takes_what_uses_nothing_new_and_refuses_all_else(
    kafka: str, tmp_path: Path, old: Version
):
    settings = Settings(bootstrap=kafka, fleet=f"t{secrets.token_hex(6)}")
    create_topics(settings, partitions=2)
    fleet = Fleet(settings, tmp_path)
    site = Site(settings, tmp_path, trust=tmp_path / "trust.json")
    good = kept_bundle(tmp_path)
    as_before = {"code_contract_version": 1}
    try:
        fleet.release(good, **as_before)
        site.start_worker("worker", old)
        site.wait_epoch(1, "worker")
        newer = {
            "malformed": [{"speed": "fast"}, {"must_understand": ("speed",)}, {"step": "freeze"}],
            "contract": [{"code_contract_version": 1_000}],
        }
        for reason, changes in [(reason, each) for reason, all_of in newer.items() for each in all_of]:
            before = site.refused("worker", reason)
            offer(fleet, good, as_before | changes)
            wait_for(
                lambda before=before, reason=reason: site.refused("worker", reason) == before + 1,
                30,
                f"{changes} refused",
            )
            assert site.epoch("worker") == 1
        fleet.release(made_by_newer_code(good), **as_before)
        wait_for(lambda: site.refused("worker", "artifact") == 1, 60, "a bundle of newer code refused")
        status = site.status("worker")
        assert status is not None
        assert "found 1000; update acclimate" in (status.last_refusal or "")
        assert (status.refused_epoch, site.epoch("worker")) == (fleet.epoch, 1)
        offer(fleet, good, as_before | {"speed": "slow", "step": "renew"})
        site.wait_epoch(fleet.epoch, "worker")
        site.parts["worker"].end(signal.SIGTERM, ON_TERMINATION)
    finally:
        fleet.log.close()
        site.stop()


def offer(fleet: Fleet, bundle: Signed, changes: dict[str, object]) -> None:
    """Put the next release in force, with values that the present code may not know either."""
    member = bundle[0]
    fleet.epoch += 1
    now_ms = time.time_ns() // 1_000_000
    values: dict[str, object] = {
        "fleet": fleet.settings.fleet,
        "epoch": fleet.epoch,
        "issued_ms": now_ms,
        "expires_ms": now_ms + 3_600_000,
        "previous": None,
        "step": "complete",
        "asked_by": "a test",
        "stable": {"source": member},
        "artifacts": {sha: fleet.places[sha] for sha in member.files.values()},
    }
    raw = canonical_bytes(Later(**values | changes))  # `sign_release` refuses what this version does not understand
    fleet.log.append(fleet.trust, sign(RELEASE_TYPE, raw, [private("release")]))


def kept_bundle(folder: Path) -> Signed:
    """Return a bundle that version 0.1 made and signed."""
    with tarfile.open(KEPT / "bundles.tar.xz") as archive:
        archive.extractall(folder / "kept", filter="data")
    return sign_bundle(folder / "kept" / "bundles" / "source")


def made_by_newer_code(bundle: Signed) -> Signed:
    """Return the same bundle with a manifest that says so, signed like every other."""
    member, files = bundle
    names = {name: files[sha] for name, sha in member.files.items()}
    manifest = unsealed(Manifest, names[MANIFEST_FILE])
    names[MANIFEST_FILE] = sealed(manifest.model_copy(update={"code_contract_version": 1_000}))
    names[SIGNATURE_FILE] = manifest_signature(names[MANIFEST_FILE], private("gate"))
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in names.items()}
    changed = Member(**dict(member) | {"files": digests})
    return changed, {digests[name]: content for name, content in names.items()}
