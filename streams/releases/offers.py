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

__all__ = ["Offer", "Offers", "Wish"]


@dataclass(frozen=True)
class Offer:
    """A version as it came out of the catalogue: checked in itself, and signed by a gate; files by SHA-256."""

    member: Member
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class Wish:
    """What MLflow says of a request by alias; nobody has signed it.

    Attributes:
        asked_by, reason: The person and the reason, as far as it is said.
        mode: The mode that a source is to have; empty for that in force.
    """

    asked_by: str
    reason: str
    mode: str


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

    def wish(self, kind: Kind, version: int) -> Wish:
        """Return what is asked for by moving the alias to a version."""
        try:
            tags = self._connected().tags(kind, version)
        except NoSuchVersion:
            tags = {}  # `fetch` says so
        who = tags.get("asked_by", "")
        asked_by = (f"{who} (as MLflow says)" if who else "alias in MLflow")[:200]
        return Wish(asked_by, tags.get("reason", "") if who else "", tags.get("mode", "")[:200])

    def withdraw(self, kind: Kind, version: int, stable: int) -> None:
        """Take back the request for a version: no mode is asked for, and ``champion`` names the stable version."""
        self._connected().set_tag(kind, version, "mode", "")
        self._connected().set_alias(kind, "champion", stable)

    def show(self, history: History, champion: bool) -> None:
        """Let the aliases name what was in force before and, if wanted, what is."""
        catalogue = self._connected()
        stable = history.newest.release.stable if history.newest else {}
        for name, member in stable.items():
            kind = known_kind(name)
            if kind is None:
                continue
            if champion:
                catalogue.set_alias(kind, "champion", member.version)
            if self.wish(kind, member.version).mode in ("", history.mode):  # else another mode is asked for
                for said in ("asked_by", "mode"):  # once, for this release
                    catalogue.set_tag(kind, member.version, said, "")
            before = [each.member for each in history.was_stable(kind) if each.member.digest != member.digest]
            if before:
                catalogue.set_alias(kind, "previous", before[-1].version)

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
