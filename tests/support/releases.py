"""Put signed releases of made-up bundles in force, on real Kafka."""

import tempfile
import time
from pathlib import Path
from typing import Any

from acclimate.infra.settings import Settings
from acclimate.registry.bundles.member import Member
from acclimate.registry.releases.release import Place, Release, sign_release
from acclimate.registry.trust.envelope import Envelope
from acclimate.streams.releases.release_log import ReleaseLog
from tests.support.models import tiny_bundle
from tests.support.signed import DAY_MS, private, sign_bundle, trust

Signed = tuple[Member, dict[str, bytes]]


def made(name: str) -> Signed:
    """Return a bundle whose digest depends on a name, as a release names it, and its files."""
    with tempfile.TemporaryDirectory() as folder:
        tiny_bundle(Path(folder) / "bundle", data=name)
        return sign_bundle(Path(folder) / "bundle")


class Fleet:
    """A fleet's releases, one epoch after the other."""

    def __init__(self, settings: Settings, folder: Path, **believed: Any) -> None:
        self.trust: Envelope = trust(fleet=settings.fleet, **believed)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "trust.json").write_text(self.trust.model_dump_json())
        self.settings = settings.model_copy(update={"trust": folder / "trust.json", "state": folder / "state"})
        self.places: dict[str, Place] = {}
        self.epoch = 0
        self.log = ReleaseLog(self.settings)

    def send_files(self, *bundles: Signed) -> None:
        for _, files in bundles:
            self.places |= self.log.publish_files(files, self.places)

    def release(self, stable: Signed, candidate: Signed | None = None, **changes: Any) -> Release:
        """Put the next epoch in force."""
        self.send_files(stable, *([candidate] if candidate else []))
        self.epoch += 1
        used = [stable[0], *([candidate[0]] if candidate else [])]
        now_ms = time.time_ns() // 1_000_000
        values: dict[str, Any] = {
            "fleet": self.settings.fleet,
            "epoch": self.epoch,
            "issued_ms": now_ms,
            "expires_ms": now_ms + 30 * DAY_MS,
            "previous": None,
            "step": "complete",
            "asked_by": "a test",
            "code_contract_version": 1,
            "stable": {"source": stable[0]},
            "candidate": {"source": candidate[0]} if candidate else {},
            "artifacts": {sha: self.places[sha] for member in used for sha in member.files.values()},
        }
        signed_by = changes.pop("signed_by", "release")
        release = Release(**values | changes)
        self.log.append(self.trust, sign_release(release, private(signed_by)))
        return release
