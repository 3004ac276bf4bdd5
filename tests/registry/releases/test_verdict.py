"""Verdicts of gates: believed for the gate's signature alone."""

import pytest

from acclimate.adaptation.errors import ContractError
from acclimate.registry.releases.verdict import Finding, Verdict, read_verdict, sign_verdict
from acclimate.registry.trust.envelope import Envelope
from acclimate.registry.trust.trust import read_trust
from tests.support.signed import FLEET, NOW_MS, digest, key, private, trust


def verdict(by: str = "gate", outcome: str = "passed", **changes: object) -> Envelope:
    values: dict[str, object] = {
        "fleet": FLEET, "kind": "source", "name": "plant.source", "version": 2, "digest": digest("new"),
        "champion": digest("old"), "source": digest("new"), "policy": digest("policy"), "by": "a test", "at_ms": NOW_MS,
        "findings": (Finding(gate="evaluation", outcome=outcome, message="", figures={"accuracy": 0.9}),),
    }  # fmt: skip
    return sign_verdict(Verdict(**values | changes), private(by))  # type: ignore[arg-type]


def test_a_gate_is_believed_and_nobody_else():
    assert read_verdict(verdict(), read_trust(trust())).passed
    for by in ("release", "approver", "root", "stranger"):
        with pytest.raises(ContractError, match="key of role gate"):
            read_verdict(verdict(by), read_trust(trust()))
    with pytest.raises(ContractError, match="expected fleet"):
        read_verdict(verdict(fleet="elsewhere"), read_trust(trust()))
    with pytest.raises(ContractError, match="key of role gate"):
        read_verdict(verdict(), read_trust(trust(keys=(key("gate", until_ms=NOW_MS - 1),))))


def test_one_failed_gate_fails_and_only_a_reason_forces():
    believed = read_trust(trust())
    assert not read_verdict(verdict(outcome="failed"), believed).passed
    assert read_verdict(verdict(outcome="skipped"), believed).passed
    assert read_verdict(verdict(outcome="failed", forced="the line stands still"), believed).passed
    with pytest.raises(ValueError, match="forced"):
        verdict(outcome="failed", forced="")
