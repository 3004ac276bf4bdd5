"""A fleet with a catalogue and a controller, on real Kafka and MLflow, with keys that are the same in every run."""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from kafka import KafkaProducer

from acclimate.infra.settings import Settings
from acclimate.registry.bundles.any_bundle import member_of, read_any_bundle
from acclimate.registry.bundles.member import Member
from acclimate.registry.catalogue import Catalogue, model_name
from acclimate.registry.releases.approval import Approval, sign_approval
from acclimate.registry.releases.history import History
from acclimate.registry.releases.mode import Mode
from acclimate.registry.releases.rollout import RolloutPolicy
from acclimate.registry.releases.verdict import Finding, Verdict, sign_verdict
from acclimate.registry.trust.key_folder import read_trust_file
from acclimate.streams.releases.controller import Controller
from acclimate.streams.releases.history import read_history, send_statement
from acclimate.streams.wire.connect import kafka_python_options
from acclimate.streams.wire.messages import DeviceStatus, WorkerStatus
from acclimate.streams.wire.topics import create_topics, topic_name
from tests.support.answers import SESSION, receipt, record, window
from tests.support.mlflow_store import store_in
from tests.support.models import tiny_bundle
from tests.support.signed import key, private, sign_bundle, trust

SALT = f"{1:016x}"
AT_ONCE = RolloutPolicy(waves=(1.0,), observe_s=0.0)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Plant:
    """Everything around a controller: register, judge, approve, answer as devices would."""

    def __init__(self, kafka: str, fleet: str, folder: Path, approvals: int = 0, mlflow: str | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        keys = (key("release"), key("gate"), key("approver", "ann"), key("approver", "bob"), key("agent"))
        self.folder = folder
        (folder / "trust.json").write_text(trust(fleet=fleet, keys=keys, approvals=approvals).model_dump_json())
        self.settings = Settings(
            bootstrap=kafka,
            fleet=fleet,
            trust=folder / "trust.json",
            state=folder / "state",
            mlflow=mlflow or store_in(folder),
        )
        create_topics(self.settings, partitions=2)
        self.catalogue = Catalogue(self.settings.mlflow, fleet)
        self.trust = read_trust_file(folder / "trust.json")[1]
        self._producer: KafkaProducer | None = None

    def controller(self, policy: RolloutPolicy = AT_ONCE, **changes: Any) -> Controller:
        return Controller(self.settings, policy, private("release"), lambda: SALT, **changes)

    def history(self) -> History:
        return read_history(self.settings, self.trust)

    def register(self, name: str, signed_by: str = "gate") -> Member:
        """Register a bundle whose digest depends on a name."""
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "bundle"
            tiny_bundle(folder, data=name)
            sign_bundle(folder, signed_by=signed_by)
            version = self.catalogue.register("source", folder, {}, {}, {}, {}).version
            files = {path.name: path.read_bytes() for path in folder.iterdir()}
            return member_of(
                model_name(self.settings.fleet, "source"), version, read_any_bundle(folder, "source"), files
            )

    def judge(self, member: Member, passed: bool = True, forced: str | None = None) -> None:
        """Send a verdict against what is in force now."""
        newest = self.history().newest
        champion = newest.release.stable["source"].digest if newest else None
        finding = Finding(gate="canary", outcome="passed" if passed else "failed", message="as it was made")
        verdict = Verdict(
            fleet=self.settings.fleet,
            at_ms=now_ms(),
            kind="source",
            name=member.name,
            version=member.version,
            digest=member.digest,
            champion=champion,
            source=member.digest,
            policy="0" * 64,
            findings=(finding,),
            forced=forced,
            by="a test",
        )
        send_statement(self.settings, sign_verdict(verdict, private("gate")))

    def approve(self, member: Member, by: str = "ann", reason: str = "looks right", **changes: Any) -> None:
        values: dict[str, Any] = {
            "fleet": self.settings.fleet,
            "action": "promote",
            "kind": "source",
            "name": member.name,
            "version": member.version,
            "digest": member.digest,
            "reason": reason,
            "at_ms": now_ms(),
        }
        send_statement(self.settings, sign_approval(Approval(**values | changes), private(by)))

    def champion(self, member: Member, mode: str = "") -> None:
        """Move the alias and say a mode, as anyone may in MLflow's page."""
        self.catalogue.set_tag("source", member.version, "mode", mode)
        self.catalogue.set_alias("source", "champion", member.version)

    def made(self, name: str) -> Member:
        """Register a bundle that has passed its gates."""
        member = self.register(name)
        self.judge(member)
        return member

    def answer(
        self,
        device: str,
        epoch: int,
        bundle: str,
        confidence: float = 0.9,
        windows: int = 25,
        mode: Mode = "observe",
    ) -> None:
        """Answer a record of a device as a worker would."""
        entry = {**window(0, None, 0, 0.0), "source": {"label": 0, "probabilities": [confidence, 1 - confidence]}}
        value = record(device, 0, [entry] * windows, receipt(bundle, epoch, mode))
        self.send("predictions", device, json.dumps(value).encode())

    def refuse(self, who: str, epoch: int, running: int, why: str = "the canary misses its outputs") -> None:
        told = {"receipt": receipt("0" * 64, running), "refused_epoch": epoch, "last_refusal": why}
        worker = who.startswith("worker/")
        status = (
            WorkerStatus(schema_version=1, **told)
            if worker
            else DeviceStatus(schema_version=1, session=SESSION, **told)
        )
        self.send("status", who, status.model_dump_json().encode())

    def send(self, suffix: str, key: str, value: bytes) -> None:
        if self._producer is None:
            self._producer = KafkaProducer(**kafka_python_options(self.settings), acks="all")
        self._producer.send(topic_name(self.settings.fleet, suffix), key=key.encode(), value=value)

    def flush(self) -> None:
        if self._producer is not None:
            self._producer.flush()

    def close(self) -> None:
        if self._producer is not None:
            self._producer.close()
