"""The keys that a fleet believes: public keys by role, signed by the root, which stays offline.

A newer version replaces an older one if a root key of both signed it (the rule of TUF); an older one is never taken
again. While a version lists the old and the new key of a role, both are believed: that is the window of a rotation. It
may be given an end as well. A revoked key is never believed again.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar

from pydantic import Field, model_validator

from acclimate.adaptation.errors import ContractError
from acclimate.registry.canonical import Digest, Extensible, Name, Signed, parse_canonical
from acclimate.registry.trust.envelope import Envelope, key_id, parse_envelope, signers

__all__ = [
    "ROLES",
    "TRUST_TYPE",
    "FleetName",
    "Key",
    "Milliseconds",
    "Role",
    "Statement",
    "Trust",
    "newer_trust",
    "read_statement",
    "read_trust",
]

Role = Literal["release", "gate", "approver", "agent"]
ROLES: tuple[Role, ...] = ("release", "gate", "approver", "agent")
TRUST_TYPE = "application/vnd.acclimate.trust+json"

PublicKey = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Milliseconds = Annotated[int, Field(ge=0, lt=2**53)]
FleetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


class Key(Extensible):
    """One key of a role.

    Attributes:
        owner: The name of the holder, for people.
        role: The role, which says what it may sign: releases, verdicts and bundles, approvals, records of adapters. A
            key of a role that only newer versions know signs nothing that is believed here.
        public_key: Ed25519, hex.
        from_ms, until_ms: Statements that say they were made in this time are believed, both ends included;
            milliseconds since 1970.
    """

    owner: Name
    role: Role | Name
    public_key: PublicKey
    from_ms: Milliseconds
    until_ms: Milliseconds | None = None

    @property
    def key_id(self) -> str:
        """The id of the key."""
        return key_id(self.public_key)

    def holds_at(self, at_ms: int) -> bool:
        """Say whether a statement of this time is believed."""
        return self.from_ms <= at_ms and (self.until_ms is None or at_ms <= self.until_ms)


class Trust(Signed):
    """The keys that a fleet believes.

    Attributes:
        version: Counts up from 1.
        root: Public keys that sign these statements.
        approvals: The number of approvers that must sign for each bundle of a release; 0 leaves it to the controller.
        keys: The keys of all roles.
        revoked: Ids that no later version may list.
    """

    schema_version: Literal[1] = 1
    fleet: FleetName
    version: Annotated[int, Field(ge=1, lt=2**31)]
    root: Annotated[tuple[PublicKey, ...], Field(min_length=1, max_length=8)]
    approvals: Annotated[int, Field(ge=0, le=2)] = 0
    keys: Annotated[tuple[Key, ...], Field(max_length=64)] = ()
    revoked: Annotated[tuple[Digest, ...], Field(max_length=256)] = ()

    @model_validator(mode="after")
    def _each_key_once(self) -> "Trust":
        ids = [key_id(public) for public in self.root] + [key.key_id for key in self.keys]
        if len(set(ids)) != len(ids):
            raise ValueError("one key is listed twice; each role has keys of its own")
        if set(ids) & set(self.revoked):
            raise ValueError("a revoked key is listed")
        return self

    def keys_of(self, role: Role, at_ms: int) -> Mapping[str, str]:
        """Return the public keys of a role that were good at a time, by id."""
        return {key.key_id: key.public_key for key in self.keys if key.role == role and key.holds_at(at_ms)}

    def owner(self, key: str) -> str:
        """Return who holds the key with this id."""
        return next((entry.owner for entry in self.keys if entry.key_id == key), key[:12])


class Statement(Signed):
    """Base of what the holder of a role signs about a fleet; ``at_ms`` is when, by the signer's clock."""

    fleet: FleetName
    at_ms: Milliseconds


_Statement = TypeVar("_Statement", bound=Statement)


def read_trust(raw: bytes | Envelope) -> Trust:
    """Return a statement that one of its own root keys signed; that is enough for the first one, given by hand.

    Raises:
        ContractError: It is not such a statement.
    """
    envelope = parse_envelope(raw, "trust") if isinstance(raw, bytes) else raw
    trust = parse_canonical(Trust, envelope.content(), "trust")
    if not _roots(envelope, trust):
        raise ContractError("trust: expected the signature of one of its root keys, found none")
    return trust


def newer_trust(known: Envelope, offered: Envelope) -> Envelope:
    """Return which of two statements counts: the offered one if it is newer and the known roots signed it.

    Raises:
        ContractError: The offered one is older, of another fleet, not newer though it differs, or lists a revoked key;
            or no known root signed it.
    """
    if offered.payload == known.payload:
        return known
    before, after = read_trust(known), read_trust(offered)
    if after.fleet != before.fleet:
        raise ContractError(f"trust: expected fleet {before.fleet}, found {after.fleet}")
    if after.version <= before.version:
        raise ContractError(
            f"trust: expected a version above {before.version}, found {after.version} with other content; older "
            "statements are never taken again"
        )
    if not _roots(offered, before):
        raise ContractError(f"trust: version {after.version} is not signed by a root key of version {before.version}")
    if not set(before.revoked) <= set(after.revoked):
        raise ContractError(f"trust: version {after.version} takes a revocation back; a revoked key stays revoked")
    return offered


def read_statement(
    kind: type[_Statement], payload_type: str, role: Role, envelope: Envelope, trust: Trust, what: str
) -> _Statement:
    """Return the statement that the holder of a role signed about this fleet.

    Args:
        kind, payload_type: The model and the type of the statement.
        role: The role whose key must have signed, good at the time that the statement gives.
        envelope: The statement as it came.
        trust: The keys to believe.
        what: The name in messages.

    Raises:
        ContractError: The statement is another, of another fleet, or no such signature holds.
    """
    statement = parse_canonical(kind, envelope.content(), what)
    if statement.fleet != trust.fleet:
        raise ContractError(f"{what}: expected fleet {trust.fleet}, found {statement.fleet}")
    if not signers(envelope, payload_type, trust.keys_of(role, statement.at_ms), what):
        raise ContractError(f"{what}: expected the signature of a believed key of role {role}, found none")
    return statement


def _roots(envelope: Envelope, trust: Trust) -> frozenset[str]:
    return signers(envelope, TRUST_TYPE, {key_id(public): public for public in trust.root}, "trust")
