"""An approver's signed word for one bundle; it stays good for a later return to the same bundle."""

from typing import Annotated, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field

from acclimate.adaptation.errors import ContractError
from acclimate.registry.bundles.member import Kind, known_kind
from acclimate.registry.canonical import Digest, Name, canonical_bytes
from acclimate.registry.trust.envelope import Envelope, sign, signers
from acclimate.registry.trust.trust import Statement, Trust, read_statement

__all__ = ["APPROVAL_TYPE", "Action", "Approval", "approvers", "read_approval", "sign_approval"]

APPROVAL_TYPE = "application/vnd.acclimate.approval+json"

Action = Literal["promote", "rollback"]
ACTIONS: tuple[Action, ...] = ("promote", "rollback")


class Approval(Statement):
    """An approver's word for one bundle.

    Attributes:
        action: The step that was asked for.
        kind, name, version: The registered model and its version, for people.
        digest: The bundle's digest; it alone counts.
        reason: The reason in the approver's words.

    An action or a kind that only newer versions know is shown and not carried out.
    """

    schema_version: Literal[1] = 1
    action: Action | Name
    kind: Kind | Name
    name: Name
    version: Annotated[int, Field(ge=1)]
    digest: Digest
    reason: Annotated[str, Field(max_length=2000)]

    @property
    def asked_kind(self) -> Kind | None:
        """The kind that is asked for; None where this version does not know the kind or the action."""
        return known_kind(self.kind) if self.action in ACTIONS else None


def sign_approval(approval: Approval, key: Ed25519PrivateKey) -> Envelope:
    """Return the signed statement."""
    return sign(APPROVAL_TYPE, canonical_bytes(approval), [key])


def read_approval(envelope: Envelope, trust: Trust) -> Approval:
    """Return the approval that an approver of this fleet signed.

    Raises:
        ContractError: The approval is for another fleet, or no approver's signature holds.
    """
    return read_statement(Approval, APPROVAL_TYPE, "approver", envelope, trust, "approval")


def approvers(envelopes: tuple[Envelope, ...], digest: str, trust: Trust) -> frozenset[str]:
    """Return the ids of the approvers' keys that stand behind a bundle; one person counts once.

    Raises:
        ContractError: One of the statements is not an approval of this bundle, or asks for what this version does not
            know: it may be a word against the bundle.
    """
    found: set[str] = set()
    for envelope in envelopes:
        approval = read_approval(envelope, trust)
        if approval.digest != digest:
            raise ContractError(f"approval: expected one of bundle {digest[:12]}, found one of {approval.digest[:12]}")
        if approval.asked_kind is None:
            raise ContractError(
                f"approval: expected one to {' or '.join(ACTIONS)} a bundle of a known kind, found {approval.action} "
                f"{approval.kind}; update acclimate"
            )
        found |= signers(envelope, APPROVAL_TYPE, trust.keys_of("approver", approval.at_ms), "approval")
    return frozenset(found)
