"""Remarks of the controller: signed with its key, in the history beside its releases."""

from typing import Annotated, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field

from acclimate.registry.bundles.member import Kind
from acclimate.registry.canonical import Digest, Name, canonical_bytes
from acclimate.registry.trust.envelope import Envelope, sign
from acclimate.registry.trust.trust import Statement, Trust, read_statement

__all__ = ["REMARK_TYPE", "Remark", "Topic", "read_remark", "sign_remark"]

# Its name on the wire from the first day on; a history outlives names in the code.
REMARK_TYPE = "application/vnd.acclimate.report+json"

Topic = Literal["alias_differs", "alias_reset", "waits", "refused", "stale"]


class Remark(Statement):
    """Something that the controller noticed.

    Attributes:
        about: ``alias_differs``: MLflow names another version than what is in force; ``alias_reset``: the controller
            moved it back; ``waits`` and ``refused``: a request that is not carried out, yet or at all; ``stale``:
            receivers that are behind.
        kind, version, digest: The bundle that it is about, as far as known.
        message: One line that also says what to do.
    """

    schema_version: Literal[1] = 1
    about: Topic | Name
    kind: Kind | Name | None = None
    version: Annotated[int, Field(ge=1)] | None = None
    digest: Digest | None = None
    message: Annotated[str, Field(min_length=1, max_length=2000)]


def sign_remark(remark: Remark, key: Ed25519PrivateKey) -> Envelope:
    """Return the signed statement."""
    return sign(REMARK_TYPE, canonical_bytes(remark), [key])


def read_remark(envelope: Envelope, trust: Trust) -> Remark:
    """Return the remark that the controller of this fleet signed.

    Raises:
        ContractError: The remark is about another fleet, or no signature of a controller holds.
    """
    return read_statement(Remark, REMARK_TYPE, "release", envelope, trust, "remark")
