"""Bundles of all kinds: read by what their manifest says they are, and signed beside it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from acclimate.adaptation.errors import ContractError
from acclimate.registry.bundles.aligned_bundle import AlignedBundle, read_aligned_bundle
from acclimate.registry.bundles.generator_bundle import GeneratorBundle, read_generator_bundle
from acclimate.registry.bundles.manifest import MANIFEST_FILE, MAX_MANIFEST_BYTES, SIGNATURE_FILE
from acclimate.registry.bundles.member import KINDS, Kind, Member, known_kind
from acclimate.registry.bundles.source_bundle import Bundle, read_bundle
from acclimate.registry.folder import read_file
from acclimate.registry.trust.envelope import detached_signers, sign_detached
from acclimate.registry.trust.trust import Trust

__all__ = [
    "AnyBundle",
    "bundle_kind",
    "check_manifest_signature",
    "made_for",
    "manifest_signature",
    "member_of",
    "read_any_bundle",
]

AnyBundle = Bundle | GeneratorBundle | AlignedBundle
_MANIFEST_TYPE = "application/vnd.acclimate.manifest+json"


def bundle_kind(folder: Path) -> Kind:
    """Return what a folder says it holds; nothing else of it is checked.

    Raises:
        ContractError: The folder has no manifest, or one of an unknown kind.
    """
    raw = read_file(folder, MANIFEST_FILE, MAX_MANIFEST_BYTES)
    try:
        manifest = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ContractError(f"{folder / MANIFEST_FILE}: expected JSON, found: {error}") from error
    found = manifest.get("kind") if isinstance(manifest, dict) else None
    kind = known_kind(str(found))
    if kind is None:
        raise ContractError(f"{folder / MANIFEST_FILE}: expected kind {', '.join(KINDS)}, found {str(found)[:40]!r}")
    return kind


def read_any_bundle(folder: Path, kind: Kind) -> AnyBundle:
    """Return the bundle of this kind in a folder, whole and checked in itself.

    Raises:
        ContractError: The bundle is of another kind, or anything about it is wrong.
    """
    if kind == "source":
        return read_bundle(folder)
    if kind == "cta":
        return read_aligned_bundle(folder)
    bundle = read_generator_bundle(folder)
    if bundle.manifest.kind != kind:
        raise ContractError(f"{folder}: expected kind {kind}, found {bundle.manifest.kind}")
    return bundle


def made_for(bundle: AnyBundle) -> tuple[str | None, str | None]:
    """Return the digests of network and source bundle that it fits; None is any network, or none needed."""
    contract = bundle.manifest.compatibility
    network = None if contract.network_sha256 == "any" else contract.network_sha256
    return network, None if isinstance(bundle, Bundle) else bundle.manifest.compatibility.source_sha256


def member_of(name: str, version: int, bundle: AnyBundle, files: Mapping[str, bytes]) -> Member:
    """Return what a release says of a bundle.

    Args:
        name, version: The registered model and its version.
        bundle: The bundle that was read.
        files: The bundle's files by name, with the signature.
    """
    network, source = made_for(bundle)
    return Member(
        name=name,
        version=version,
        files={file: hashlib.sha256(content).hexdigest() for file, content in sorted(files.items())},
        network_sha256=network,
        source_sha256=source,
        code_contract_version=bundle.manifest.code_contract_version,
    )


def manifest_signature(manifest: bytes, key: Ed25519PrivateKey) -> bytes:
    """Return the content of ``manifest.sig``: the signature of the exact bytes of the manifest."""
    return sign_detached(_MANIFEST_TYPE, manifest, [key])


def check_manifest_signature(manifest: bytes, signature: bytes, trust: Trust) -> None:
    """Check that a gate's key signed a manifest.

    The key may be past its window, because bundles live longer than keys; a revoked one does not count.

    Raises:
        ContractError: No such signature is there, or it does not hold.
    """
    keys = {key.key_id: key.public_key for key in trust.keys if key.role == "gate"}
    if not detached_signers(signature, _MANIFEST_TYPE, manifest, keys, SIGNATURE_FILE):
        raise ContractError(f"{SIGNATURE_FILE}: expected the signature of a gate that the fleet believes, found none")
