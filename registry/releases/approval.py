"""An approver's signed word for one bundle in one mode; it stays good for a later return to the same."""

from typing import Annotated, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field

from acclimate.adaptation.errors import ContractError
from acclimate.registry.bundles.member import Kind, known_kind
from acclimate.registry.canonical import Digest, Name, added, canonical_bytes
from acclimate.registry.releases.mode import MODES_SERVED, Mode
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
        digest: The bundle's digest; it and the mode count.
        reason: The reason in the approver's words.
        mode: The mode in which a source is to answer; other kinds have none and leave it at its default.

    An action, a kind or a mode that only newer versions know is shown and not carried out.
    """

    schema_version: Literal[1] = 1
    action: Action | Name
    kind: Kind | Name
    name: Name
    version: Annotated[int, Field(ge=1)]
    digest: Digest
    reason: Annotated[str, Field(max_length=2000)]
    mode: Mode | Name = added("observe")

    @property
    def asked_kind(self) -> Kind | None:
        """The kind that is asked for; None where this version does not know the kind, the action or the mode."""
        kind = known_kind(self.kind)
        modes = MODES_SERVED if kind == "source" else ("observe",)
        return kind if self.action in ACTIONS and self.mode in modes else None


def sign_approval(approval: Approval, key: Ed25519PrivateKey) -> Envelope:
    """Return the signed statement."""
    return sign(APPROVAL_TYPE, canonical_bytes(approval), [key])


def read_approval(envelope: Envelope, trust: Trust) -> Approval:
    """Return the approval that an approver of this fleet signed.

    Raises:
        ContractError: The approval is for another fleet, or no approver's signature holds.
    """
    return read_statement(Approval, APPROVAL_TYPE, "approver", envelope, trust, "approval")


def approvers(envelopes: tuple[Envelope, ...], digest: str, trust: Trust, mode: str) -> frozenset[str]:
    """Return the ids of the approvers' keys that stand behind a bundle in a mode; one person counts once.

    Behind ``observe`` stand the approvals of all modes: who lets a bundle adapt lets it answer. Behind any other mode
    stand those alone that name it, so that a release key cannot turn adaptation on.

    Raises:
        ContractError: One of the statements is not an approval of this bundle, or asks for what this version does not
            know: it may be a word against the bundle. One that names an unknown mode approves nothing.
    """
    found: set[str] = set()
    for envelope in envelopes:
        approval = read_approval(envelope, trust)
        if approval.digest != digest:
            raise ContractError(f"approval: expected one of bundle {digest[:12]}, found one of {approval.digest[:12]}")
        if approval.action not in ACTIONS or known_kind(approval.kind) is None:
            raise ContractError(
                f"approval: expected one to {' or '.join(ACTIONS)} a bundle of a known kind, found {approval.action} "
                f"{approval.kind}; update acclimate"
            )
        if approval.asked_kind is None or mode not in ("observe", approval.mode):
            continue
        found |= signers(envelope, APPROVAL_TYPE, trust.keys_of("approver", approval.at_ms), "approval")
    return frozenset(found)
