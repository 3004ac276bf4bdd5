"""The findings of the gates about a bundle, signed with the gates' key; the tag in MLflow repeats them for people."""

from typing import Annotated, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field

from acclimate.registry.bundles.member import Kind
from acclimate.registry.canonical import Digest, Extensible, Name, canonical_bytes
from acclimate.registry.trust.envelope import Envelope, sign
from acclimate.registry.trust.trust import Statement, Trust, read_statement

__all__ = ["VERDICT_TYPE", "Finding", "GateName", "Verdict", "read_verdict", "sign_verdict"]

VERDICT_TYPE = "application/vnd.acclimate.verdict+json"

GateName = Literal["contract", "canary", "evaluation", "shifts", "anchor", "shadow"]


class Finding(Extensible):
    """The finding of one gate.

    Attributes:
        gate: The gate's name.
        outcome: ``skipped`` where it had nothing to judge; the message says why.
        message: One line about the finding.
        figures: The values that it measured.
    """

    gate: GateName | Name
    outcome: Literal["passed", "failed", "skipped"]
    message: Annotated[str, Field(max_length=1000)]
    figures: Annotated[dict[Name, float | int | str], Field(max_length=2000)] = Field(default_factory=dict)


class Verdict(Statement):
    """The gates' word on one bundle.

    Attributes:
        kind, name, version: The registered model and its version.
        digest: The bundle's digest.
        champion: The digest of the bundle that it was compared with; None without one.
        source: The digest of the source bundle that it runs with; its own for a source.
        policy: The SHA-256 of the gates' settings.
        findings: One per gate.
        forced: The reason why it may be released all the same; None where the gates decide.
        by: The person who ran the gates.
    """

    schema_version: Literal[1] = 1
    kind: Kind | Name
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
        """Say whether no gate failed, or a person has overruled them."""
        return self.forced is not None or all(finding.outcome != "failed" for finding in self.findings)


def sign_verdict(verdict: Verdict, key: Ed25519PrivateKey) -> Envelope:
    """Return the signed statement."""
    return sign(VERDICT_TYPE, canonical_bytes(verdict), [key])


def read_verdict(envelope: Envelope, trust: Trust) -> Verdict:
    """Return the verdict that a gate of this fleet signed.

    Raises:
        ContractError: The verdict is for another fleet, or no gate's signature holds.
    """
    return read_statement(Verdict, VERDICT_TYPE, "gate", envelope, trust, "verdict")
