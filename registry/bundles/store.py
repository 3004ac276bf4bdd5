"""The folder where a receiver keeps bundles: one folder per digest, put there whole after every check or not at all."""

import hashlib
import shutil
from collections.abc import Callable, Set
from pathlib import Path

from acclimate.adaptation.errors import ContractError
from acclimate.registry.bundles.any_bundle import (
    AnyBundle,
    bundle_kind,
    check_manifest_signature,
    made_for,
    read_any_bundle,
)
from acclimate.registry.bundles.manifest import MANIFEST_FILE, MAX_MANIFEST_BYTES, SIGNATURE_FILE
from acclimate.registry.bundles.member import Kind, Member
from acclimate.registry.folder import read_file, write_folder
from acclimate.registry.trust.trust import Trust

__all__ = ["install_bundle", "prune_bundles"]

Fetch = Callable[[str], bytes]


def install_bundle(store: Path, kind: Kind, member: Member, trust: Trust | None, fetch: Fetch) -> AnyBundle:
    """Return a bundle of the store, fetched first if it is not there; a damaged one is fetched anew.

    Args:
        store: Folder of the bundles; it has one writer.
        kind, member: The bundle as the release describes it.
        trust: The keys whose signature of the manifest counts; None where it was checked when the bundle came.
        fetch: Returns a file by its SHA-256 (hex); what it returns is checked here.

    Raises:
        ContractError: Anything differs from what the release or the manifest says. The store is as before.
    """
    folder = store / member.digest
    if folder.is_dir():
        try:
            return _checked(folder, kind, member, trust)
        except ContractError:
            pass  # it stays until a better one is there: it may be what runs
    contents = {}
    for name, digest in sorted(member.files.items()):
        content = fetch(digest)
        found = hashlib.sha256(content).hexdigest()
        if found != digest:
            raise ContractError(f"{name}: expected SHA-256 {digest}, found {found}; the artifact is damaged")
        contents[name] = content
    fresh = store / f".fresh-{member.digest}"
    shutil.rmtree(fresh, ignore_errors=True)  # of a crash
    write_folder(fresh, contents, check=lambda written: _checked(written, kind, member, trust))
    if folder.is_dir():
        shutil.rmtree(folder)
    fresh.rename(folder)
    return _checked(folder, kind, member, trust)


def prune_bundles(store: Path, keep: Set[str]) -> None:
    """Remove every bundle but these, and whatever a crash has left half-written."""
    if store.is_dir():
        for entry in store.iterdir():
            if entry.name not in keep and entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)


def _checked(folder: Path, kind: Kind, member: Member, trust: Trust | None) -> AnyBundle:
    if trust is not None:
        manifest = read_file(folder, MANIFEST_FILE, MAX_MANIFEST_BYTES)
        check_manifest_signature(manifest, read_file(folder, SIGNATURE_FILE, MAX_MANIFEST_BYTES), trust)
    if bundle_kind(folder) != kind:
        raise ContractError(f"manifest.json: expected kind {kind}, found {bundle_kind(folder)}")
    bundle = read_any_bundle(folder, kind)
    for what, expected, found in (
        ("digest", member.digest, bundle.digest),
        ("network and source that it was made for", (member.network_sha256, member.source_sha256), made_for(bundle)),
    ):
        if expected != found:
            raise ContractError(f"manifest.json: {what}: the release says {expected}, found {found}")
    return bundle
