"""A fleet's keys and signed statements, the same in every run."""

import hashlib
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from acclimate.registry.bundles.any_bundle import made_for, manifest_signature, read_any_bundle
from acclimate.registry.bundles.member import Kind, Member
from acclimate.registry.canonical import canonical_bytes
from acclimate.registry.releases.approval import Approval, sign_approval
from acclimate.registry.releases.release import Place, Release, record_bytes, sign_release
from acclimate.registry.trust.envelope import Envelope, public_hex, sign
from acclimate.registry.trust.trust import TRUST_TYPE, Key, Role, Trust

FLEET = "plant"
NOW_MS = 1_800_000_000_000
DAY_MS = 24 * 3600 * 1000


def private(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


def key(role: Role, name: str | None = None, **window: int) -> Key:
    return Key(
        owner=name or role,
        role=role,
        public_key=public_hex(private(name or role)),
        from_ms=window.get("from_ms", 0),
        until_ms=window.get("until_ms"),
    )


def trust(
    version: int = 1, keys: tuple[Key, ...] | None = None, signed_by: tuple[str, ...] = ("root",), **changes: Any
) -> Envelope:
    """Sign whom to believe: a release, a gate, an approver and an agent key where nothing else is said."""
    believed = Trust(
        fleet=changes.pop("fleet", FLEET),
        version=version,
        root=tuple(public_hex(private(name)) for name in changes.pop("root", ("root",))),
        keys=(key("release"), key("gate"), key("approver"), key("agent")) if keys is None else keys,
        **changes,
    )
    return sign(TRUST_TYPE, canonical_bytes(believed), [private(name) for name in signed_by])


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def member(what: str, version: int = 1, source: str | None = None) -> Member:
    return Member(
        name=f"{FLEET}-{what}",
        version=version,
        files={"manifest.json": digest(f"{what} {version}"), "manifest.sig": digest(f"{what} {version} sig")},
        network_sha256=digest("network"),
        source_sha256=source,
    )


def release(epoch: int = 1, **changes: Any) -> Release:
    stable: dict[Kind, Member] = changes.pop("stable", {"source": member("source", epoch)})
    candidate: dict[Kind, Member] = changes.pop("candidate", {})
    files = {sha for bundles in (stable, candidate) for m in bundles.values() for sha in m.files.values()}
    values: dict[str, Any] = {
        "fleet": FLEET,
        "epoch": epoch,
        "issued_ms": NOW_MS - 1000,
        "expires_ms": NOW_MS + 30 * DAY_MS,
        "previous": None,
        "step": "complete",
        "asked_by": "a test",
        "code_contract_version": 1,
        "stable": stable,
        "candidate": candidate,
        "artifacts": {sha: Place(size_bytes=100, offsets=(i,)) for i, sha in enumerate(sorted(files))},
    }
    return Release(**values | changes)


def record(of: Release, believed: Envelope | None = None, signed_by: str = "release") -> bytes:
    return record_bytes(believed or trust(), sign_release(of, private(signed_by)))


def approval(bundle: str, by: str = "approver", **changes: Any) -> Envelope:
    values: dict[str, Any] = {
        "fleet": FLEET,
        "action": "promote",
        "kind": "source",
        "name": "plant-source",
        "version": 1,
        "digest": bundle,
        "reason": "looks right",
        "at_ms": NOW_MS - 2000,
    }
    return sign_approval(Approval(**values | changes), private(by))


def sign_bundle(folder: Path, kind: Kind = "source", signed_by: str = "gate") -> tuple[Member, dict[str, bytes]]:
    """Sign the manifest in a bundle's folder; return what a release says of it, and its files by digest."""
    (folder / "manifest.sig").write_bytes(
        manifest_signature((folder / "manifest.json").read_bytes(), private(signed_by))
    )
    network, source = made_for(read_any_bundle(folder, kind))
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    files = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    return (
        Member(name=f"{FLEET}-{kind}", version=1, files=files, network_sha256=network, source_sha256=source),
        {files[name]: content for name, content in contents.items()},
    )
