"""What MLflow offers a controller, and what the controller shows there; without a signature nothing is believed."""

from collections.abc import Mapping
from dataclasses import dataclass

from acclimate.adaptation.errors import ContractError
from acclimate.infra.errors import NoSuchVersion
from acclimate.infra.settings import Settings
from acclimate.registry.bundles.any_bundle import check_manifest_signature, member_of
from acclimate.registry.bundles.manifest import MANIFEST_FILE, SIGNATURE_FILE
from acclimate.registry.bundles.member import Kind, Member, known_kind
from acclimate.registry.catalogue import Catalogue, model_name
from acclimate.registry.releases.history import History
from acclimate.registry.trust.trust import Trust

__all__ = ["Offer", "Offers"]


@dataclass(frozen=True)
class Offer:
    """A version as it came out of the catalogue: checked in itself, and signed by a gate; files by SHA-256."""

    member: Member
    files: Mapping[str, bytes]


class Offers:
    """The catalogue of a fleet; it connects when it is first asked. Use it from one thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._catalogue: Catalogue | None = None
        self._trust: Trust | None = None
        self._known: dict[tuple[Kind, int], Offer | str] = {}

    def champions(self) -> Mapping[Kind, int]:
        """Return the version that the alias ``champion`` names, per kind that has one."""
        return self._connected().aliased("champion")

    def fetch(self, kind: Kind, version: int, trust: Trust) -> Offer:
        """Return a version; what was fetched, or found wrong, is kept while whom to believe stays the same.

        Raises:
            CatalogueError: MLflow does not answer.
            ContractError: There is no such version, it is no bundle of this kind, or no gate has signed it.
        """
        if trust != self._trust:
            self._trust, self._known = trust, {}
        if (kind, version) not in self._known:
            self._known[kind, version] = self._fetched(kind, version, trust)
        known = self._known[kind, version]
        if isinstance(known, str):
            raise ContractError(known)
        return known

    def forget(self, kind: Kind, version: int) -> None:
        """Keep a version no longer."""
        self._known.pop((kind, version), None)

    def said_by(self, kind: Kind, version: int) -> tuple[str, str]:
        """Return who moved the alias to a version and why, as far as MLflow says; nobody has signed it."""
        found = next((each for each in self._connected().versions(kind) if each.version == version), None)
        tags = found.tags if found else {}
        who = tags.get("asked_by", "")
        return (f"{who} (as MLflow says)" if who else "alias in MLflow")[:200], tags.get("reason", "") if who else ""

    def reset(self, kind: Kind, version: int) -> None:
        """Let the alias ``champion`` name a version."""
        self._connected().set_alias(kind, "champion", version)

    def show(self, history: History, champion: bool) -> None:
        """Let the aliases name what was in force before and, if wanted, what is."""
        stable = history.newest.release.stable if history.newest else {}
        for name, member in stable.items():
            kind = known_kind(name)
            if kind is None:
                continue
            if champion:
                self.reset(kind, member.version)
            self._connected().set_tag(kind, member.version, "asked_by", "")  # said once, for this release
            before = [each for each in history.was_stable(kind) if each.digest != member.digest]
            if before:
                self._connected().set_alias(kind, "previous", before[-1].version)

    def _connected(self) -> Catalogue:
        if self._catalogue is None:
            self._catalogue = Catalogue(self._settings.mlflow, self._settings.fleet)
        return self._catalogue

    def _fetched(self, kind: Kind, version: int, trust: Trust) -> Offer | str:
        """Return a version, or what is wrong with it."""
        try:
            stored = self._connected().download(kind, version)
            signature = stored.files.get(SIGNATURE_FILE, b"")
            check_manifest_signature(stored.files[MANIFEST_FILE], signature, trust)
        except (ContractError, NoSuchVersion) as error:
            return str(error)
        member = member_of(model_name(self._settings.fleet, kind), version, stored.bundle, stored.files)
        return Offer(member, {member.files[name]: content for name, content in stored.files.items()})
