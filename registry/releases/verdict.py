"""What the gates found about a bundle, signed with the gates' key; the tag in MLflow only repeats it for people."""

from typing import Annotated, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field

from registry.bundles.member import Kind
from registry.canonical import Digest, Name, Strict, canonical_bytes
from registry.trust.envelope import Envelope, sign
from registry.trust.trust import Statement, Trust, read_statement

__all__ = ["VERDICT_TYPE", "Finding", "GateName", "Verdict", "read_verdict", "sign_verdict"]

VERDICT_TYPE = "application/vnd.acclimate.verdict+json"

GateName = Literal["contract", "canary", "evaluation", "shifts", "anchor", "shadow"]


class Finding(Strict):
    """What one gate found.

    Attributes:
        gate: Its name.
        outcome: ``skipped`` where it had nothing to judge; the message says why.
        message: In one line.
        figures: What it measured.
    """

    gate: GateName
    outcome: Literal["passed", "failed", "skipped"]
    message: Annotated[str, Field(max_length=1000)]
    figures: Annotated[dict[Name, float | int | str], Field(max_length=2000)] = Field(default_factory=dict)


class Verdict(Statement):
    """Whether a bundle may be released.

    Attributes:
        kind, name, version: Of the registered model.
        digest: The bundle.
        champion: Digest of what it was compared with; None where there was nothing.
        source: Digest of the source bundle that it runs with; its own for a source.
        policy: SHA-256 of the gates' settings.
        findings: One per gate.
        forced: Why it may be released all the same; None where the gates decide.
        by: Who ran them.
    """

    schema_version: Literal[1] = 1
    kind: Kind
    name: Name
    version: Annotated[int, Field(ge=1)]
    digest: Digest
    champion: Digest | None
    source: Digest
    policy: Digest
    findings: Annotated[tuple[Finding, ...], Field(min_length=1, max_length=16)]
    forced: Annotated[str, Field(min_length=1, max_length=2000)] | None = None
    by: Name

    @property
    def passed(self) -> bool:
        """Whether no gate failed, or someone has forced it."""
        return self.forced is not None or all(finding.outcome != "failed" for finding in self.findings)


def sign_verdict(verdict: Verdict, key: Ed25519PrivateKey) -> Envelope:
    """Return the signed statement."""
    return sign(VERDICT_TYPE, canonical_bytes(verdict), [key])


def read_verdict(envelope: Envelope, trust: Trust) -> Verdict:
    """Return what a gate of this fleet signed.

    Raises:
        ContractError: It is of another fleet, or no gate's signature holds.
    """
    return read_statement(Verdict, VERDICT_TYPE, "gate", envelope, trust, "verdict")
