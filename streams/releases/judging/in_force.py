"""What a candidate is compared with: the bundles in force, and the sources that it could run with."""

from acclimate.adaptation.errors import ContractError
from acclimate.registry.bundles.any_bundle import AnyBundle, member_of
from acclimate.registry.bundles.member import Kind, Member
from acclimate.registry.bundles.source_bundle import Bundle
from acclimate.registry.catalogue import Catalogue
from acclimate.registry.releases.history import History

__all__ = ["candidate_source", "source_in_force", "stable_member", "stored_bundle"]


def stable_member(history: History, kind: Kind) -> Member | None:
    """Return what all devices have of a kind; None where there is none."""
    return history.newest.release.stable.get(kind) if history.newest else None


def stored_bundle(catalogue: Catalogue, kind: Kind, member: Member) -> AnyBundle:
    """Return a bundle of a release, fetched from the catalogue and compared with what the release says.

    Raises:
        CatalogueError: MLflow does not answer, or has no such version.
        ContractError: MLflow holds something else under this version.
    """
    stored = catalogue.download(kind, member.version)
    found = member_of(member.name, member.version, stored.bundle, stored.files)
    if found != member:
        raise ContractError(
            f"{member.name} version {member.version} in MLflow is not what is in force: expected bundle "
            f"{member.digest[:12]} as it was signed, found {found.digest[:12]}"
        )
    return stored.bundle


def source_in_force(catalogue: Catalogue, history: History) -> Bundle | None:
    """Return the source that all devices have; None where there is none.

    Raises:
        CatalogueError: MLflow does not answer.
        ContractError: What it holds differs from what is in force.
    """
    member = stable_member(history, "source")
    return None if member is None else _source(stored_bundle(catalogue, "source", member))


def candidate_source(catalogue: Catalogue, history: History) -> tuple[int, Bundle] | None:
    """Return version and bundle of the source with the alias ``candidate``, where that is not the one in force.

    Raises:
        CatalogueError: MLflow does not answer.
        ContractError: It holds something else.
    """
    member = stable_member(history, "source")
    version = catalogue.aliased("candidate").get("source")
    if version is None or (member is not None and version == member.version):
        return None
    return version, _source(catalogue.download("source", version).bundle)


def _source(bundle: AnyBundle) -> Bundle:
    if not isinstance(bundle, Bundle):  # a catalogue reads what it is asked for
        raise ContractError(f"expected a source bundle, found {bundle.manifest.kind} {bundle.digest[:12]}")
    return bundle
