"""What the gates found about a bundle, signed with the gates' key; the tag in MLflow only repeats it for people."""

from typing import Annotated, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field

from adaptation.errors import ContractError
from registry.canonical import Digest, Name, Strict, canonical_bytes, parse_canonical
from registry.envelope import Envelope, sign, signers
from registry.release import Kind
from registry.trust import FleetName, Milliseconds, Trust

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


class Verdict(Strict):
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
        at_ms: When.
    """

    schema_version: Literal[1] = 1
    fleet: FleetName
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
    at_ms: Milliseconds

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
    verdict = parse_canonical(Verdict, envelope.content(), "verdict")
    if verdict.fleet != trust.fleet:
        raise ContractError(f"verdict: expected fleet {trust.fleet}, found {verdict.fleet}")
    if not signers(envelope, VERDICT_TYPE, trust.keys_of("gate", verdict.at_ms), "verdict"):
        raise ContractError("verdict: expected the signature of a gate whom the fleet believes, found none")
    return verdict
