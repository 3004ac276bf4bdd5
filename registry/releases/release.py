"""A release: the one signed statement of which bundles are in force in a fleet.

Each release has the next epoch; a return to older bundles is a new epoch too. A device is on the candidate set where a
hash of its name lies below the share of the wave, else on the stable set. Both sets name every file by its digest, and
where its parts lie in ``.artifacts``; each set has a mode, which says who answers.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, model_validator

from acclimate.registry.bundles.member import BundleSet, Member
from acclimate.registry.canonical import (
    Digest,
    Extensible,
    Name,
    Signed,
    Strict,
    added,
    canonical_bytes,
    parse_canonical,
    refusing,
)
from acclimate.registry.releases.mode import Mode
from acclimate.registry.trust.envelope import Envelope, sign
from acclimate.registry.trust.trust import FleetName, Milliseconds

__all__ = [
    "RELEASE_TYPE",
    "InMode",
    "Place",
    "Release",
    "ReleaseRecord",
    "Step",
    "parse_record",
    "read_release",
    "record_bytes",
    "release_digest",
    "sign_release",
    "unit_hash",
]

RELEASE_TYPE = "application/vnd.acclimate.release+json"

Step = Literal["start", "wave", "complete", "abort", "rollback", "renew"]


class Place(Extensible):
    """The place of a file in ``.artifacts``: its size, and the offsets of its parts in order."""

    size_bytes: Annotated[int, Field(ge=1, le=256 * 2**20)]
    offsets: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1, max_length=512)]


@dataclass(frozen=True)
class InMode:
    """A bundle of a set, and the mode of the set; it concerns sources alone, all other kinds say ``observe``."""

    member: Member
    mode: Mode | Name = "observe"

    @property
    def key(self) -> tuple[str, str]:
        """Digest and mode: two sets with equal ones do the same with this bundle."""
        return self.member.digest, self.mode


class Release(Signed):
    """The bundles in force in a fleet.

    Attributes:
        epoch: The number of the release, from 1; one counter per fleet.
        issued_ms: The time of signing, in milliseconds since 1970.
        expires_ms: The time after which it is not newly installed; what runs goes on.
        previous: The SHA-256 of the release before it; None for the first.
        step: The step that made it; one that only newer versions know is shown.
        asked_by, approved_by, reason: The people and the reason behind this step.
        stable, candidate: The two sets, a bundle per kind; the candidate set is empty between roll-outs.
        stable_mode, candidate_mode: Who answers the devices of each set; a mode that only newer versions know is read
            and shown, and not served.
        salt: The text that draws which devices come first in this roll-out.
        share: The share of devices on the candidate set, 0 to 1.
        code_contract_version: The highest one that a bundle of either set needs.
        artifacts: The place of each file, by SHA-256.
        approvals: The signed approvals, by digest of the bundle.
    """

    schema_version: Literal[1] = 1
    fleet: FleetName
    epoch: Annotated[int, Field(ge=1, lt=2**53)]
    issued_ms: Milliseconds
    expires_ms: Milliseconds
    previous: Digest | None
    step: Step | Name
    asked_by: Name
    approved_by: Annotated[tuple[Name, ...], Field(max_length=8)] = ()
    reason: Annotated[str, Field(max_length=2000)] = ""
    stable: BundleSet
    candidate: BundleSet = Field(default_factory=dict)
    stable_mode: Mode | Name = added("observe")
    candidate_mode: Mode | Name = added("observe")
    salt: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")] = "0" * 16
    share: Annotated[float, Field(ge=0, le=1)] = 0.0
    code_contract_version: Annotated[int, Field(ge=1)]
    artifacts: Annotated[dict[Digest, Place], Field(max_length=256)]
    approvals: dict[Digest, tuple[Envelope, ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _sets_fit(self) -> "Release":
        if not self.candidate and self.share:
            raise ValueError("a share of devices on no candidate set")
        if not self.candidate and self.candidate_mode != "observe":
            raise ValueError(f"candidate_mode: expected observe without a candidate set, found {self.candidate_mode!r}")
        for what, bundles in (("stable", self.stable), ("candidate", self.candidate)):
            _check_set(what, bundles)
            missing = [
                f"{kind} {n}" for kind, m in bundles.items() for n, d in m.files.items() if d not in self.artifacts
            ]
            if missing:
                raise ValueError(f"{what}: no place is given for {missing[0]}")
        return self

    def chosen(self, device: str) -> BundleSet:
        """Return the set of a device."""
        return self.candidate if self._on_candidate(device) else self.stable

    def chosen_mode(self, device: str) -> Mode | Name:
        """Return the mode of the set of a device."""
        return self.candidate_mode if self._on_candidate(device) else self.stable_mode

    def stable_of(self, kind: str) -> InMode | None:
        """Return the bundle of a kind in the stable set, in its mode; None where there is none."""
        return _in_mode(self.stable, self.stable_mode, kind)

    def candidate_of(self, kind: str) -> InMode | None:
        """Return the bundle of a kind in the candidate set, in its mode; None where there is none."""
        return _in_mode(self.candidate, self.candidate_mode, kind)

    def in_modes(self) -> tuple[InMode, ...]:
        """Return all bundles of both sets, each in its mode."""
        sets = ((self.stable, self.stable_mode), (self.candidate, self.candidate_mode))
        return tuple(
            each for bundles, mode in sets for kind in bundles if (each := _in_mode(bundles, mode, kind)) is not None
        )

    def digests(self) -> frozenset[str]:
        """Return the digests of all bundles of both sets."""
        return frozenset(member.digest for bundles in (self.stable, self.candidate) for member in bundles.values())

    def _on_candidate(self, device: str) -> bool:
        return bool(self.candidate) and unit_hash(self.salt, device) < self.share


class ReleaseRecord(Strict):
    """The value of ``.releases``: a release, and whom to believe about it."""

    trust: Envelope
    release: Envelope


def unit_hash(salt: str, device: str) -> float:
    """Return the place of a device in a roll-out: at least 0, below 1, the same everywhere.

    >>> round(unit_hash("00ff00ff00ff00ff", "pump-7"), 6)
    0.332029
    """
    # 53 bits: every such number is a float, so that all languages compare alike.
    return (int.from_bytes(hashlib.sha256(f"{salt}/{device}".encode()).digest()[:8], "big") >> 11) / 2**53


def release_digest(envelope: Envelope) -> str:
    """Return the SHA-256 of a release's bytes, which the next one names."""
    return hashlib.sha256(envelope.content()).hexdigest()


def sign_release(release: Release, key: Ed25519PrivateKey) -> Envelope:
    """Return the signed statement; refuse what any receiver would refuse.

    Raises:
        ContractError: The values do not fit each other.
    """
    raw = canonical_bytes(release)
    parse_canonical(Release, raw, "release")
    return sign(RELEASE_TYPE, raw, [key])


def read_release(envelope: Envelope) -> Release:
    """Return the release in a statement; `acclimate.registry.releases.acceptance` checks the signatures.

    Raises:
        ContractError: The statement does not hold a release, or the release contradicts itself.
    """
    return parse_canonical(Release, envelope.content(), "release")


def record_bytes(trust: Envelope, release: Envelope) -> bytes:
    """Return the value of ``.releases``."""
    return ReleaseRecord(trust=trust, release=release).model_dump_json().encode()


def parse_record(raw: bytes) -> ReleaseRecord:
    """Return the two statements of a value of ``.releases``; nothing is believed yet.

    Raises:
        ContractError: The value does not hold these statements.
    """
    with refusing("release record"):
        return ReleaseRecord.model_validate_json(raw)


def _in_mode(bundles: BundleSet, mode: Mode | Name, kind: str) -> InMode | None:
    member = bundles.get(kind)
    if member is None:
        return None
    return InMode(member, mode) if kind == "source" else InMode(member)


def _check_set(what: str, bundles: Mapping[str, Member]) -> None:
    if not bundles:
        return
    source = bundles.get("source")
    if source is None or source.source_sha256 is not None:
        raise ValueError(f"{what}: expected a source bundle, found {sorted(bundles)}")
    for kind, member in bundles.items():
        if kind != "source" and member.source_sha256 != source.digest:
            found = (member.source_sha256 or "no source")[:12]
            raise ValueError(f"{what}: {kind} was made for source {found}, the set has {source.digest[:12]}")
        if member.network_sha256 not in (None, source.network_sha256):
            raise ValueError(f"{what}: {kind} was made for another network than that of the source")
