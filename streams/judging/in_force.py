"""What a candidate is compared with: the bundles in force, and the sources that it could run with."""

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path

from adaptation.errors import ConfigError, ContractError
from registry.any_bundle import AnyBundle, read_any_bundle
from registry.bundle import Bundle
from registry.catalogue import Catalogue
from registry.history import History
from registry.manifest import MANIFEST_FILE
from registry.release import Kind, Member
from registry.store import install_bundle

__all__ = ["fetch_version", "offered_sources", "stable_member", "stored_bundle"]


def stable_member(history: History, kind: Kind) -> Member | None:
    """Return what all devices have of a kind; None where there is none."""
    return history.newest.release.stable.get(kind) if history.newest else None


def fetch_version(catalogue: Catalogue, kind: Kind, version: int) -> AnyBundle:
    """Return the bundle of a version.

    Raises:
        CatalogueError: MLflow does not answer, or has no such version.
        ContractError: It is no bundle of this kind.
    """
    with tempfile.TemporaryDirectory() as scratch:
        for name, content in catalogue.download(kind, version).items():
            (Path(scratch) / name).write_bytes(content)
        return read_any_bundle(Path(scratch), kind)


def stored_bundle(catalogue: Catalogue, kind: Kind, member: Member) -> AnyBundle:
    """Return a bundle of a release, fetched from the catalogue and compared with what the release says.

    Raises:
        CatalogueError: MLflow does not answer, or has no such version.
        ContractError: MLflow holds something else under this version.
    """
    files = catalogue.download(kind, member.version)
    by_digest = {hashlib.sha256(content).hexdigest(): content for content in files.values()}

    def fetch(digest: str) -> bytes:
        if digest not in by_digest:
            raise ContractError(
                f"{member.name} version {member.version} in MLflow is not what is in force: no file has {digest}"
            )
        return by_digest[digest]

    with tempfile.TemporaryDirectory() as scratch:
        return install_bundle(Path(scratch), kind, member, None, fetch)


def offered_sources(catalogue: Catalogue, history: History) -> Mapping[str, Bundle]:
    """Return the sources that a generator or an aligned encoder may be made for: the one in force, and the candidate.

    Raises:
        CatalogueError: MLflow does not answer.
        ContractError: What it holds differs from what is in force.
    """
    found: dict[str, Bundle] = {}
    member = stable_member(history, "source")
    if member is not None:
        found["the source in force"] = _source(stored_bundle(catalogue, "source", member))
    version = catalogue.aliased("candidate").get("source")
    if version is not None and (member is None or version != member.version):
        found[f"candidate version {version}"] = _source(fetch_version(catalogue, "source", version))
    return found


def _source(bundle: AnyBundle) -> Bundle:
    if not isinstance(bundle, Bundle):
        raise ConfigError(
            f"expected a source bundle, found {bundle.manifest.kind} with {MANIFEST_FILE} {bundle.digest}"
        )
    return bundle
