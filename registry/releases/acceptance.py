"""Decide whether a receiver (worker, device, controller) takes a release, from what it has seen and its clock alone.

The rules are TUF's: whom to believe and the epoch only move forward, an expired release is not newly installed, and
what runs goes on running. Why a release was refused is said in one word as well, for ``.status`` and for counting.
"""

from dataclasses import dataclass
from typing import Literal, cast

from acclimate.adaptation.engine.engine import CODE_CONTRACT_VERSION
from acclimate.adaptation.errors import ContractError
from acclimate.registry.canonical import NotUnderstood
from acclimate.registry.releases.approval import approvers
from acclimate.registry.releases.mode import served_mode
from acclimate.registry.releases.release import RELEASE_TYPE, Release, parse_record, read_release, release_digest
from acclimate.registry.trust.envelope import Envelope, signers
from acclimate.registry.trust.trust import Trust, newer_trust, read_trust

__all__ = ["Offer", "Reason", "Refused", "Seen", "check_fresh", "consider"]

Reason = Literal[
    "malformed",
    "fleet",
    "trust",
    "key",
    "signature",
    "rollback",
    "fork",
    "expired",
    "contract",
    "mode",
    "unapproved",
    "artifact",
]


class Refused(ContractError):
    """A release or one of its artifacts is not taken; the last good one stays.

    Args:
        message: The text about what was expected and what came.
        reason: One word for it.
        epoch: The epoch of a release that a believed key has signed; 0 for others.
    """

    def __init__(self, message: str, reason: Reason, epoch: int = 0) -> None:
        super().__init__(message)
        self.reason = reason
        self.epoch = epoch


@dataclass(frozen=True)
class Seen:
    """The memory of a receiver: whom to believe, and the newest release that it has accepted (epoch 0: none)."""

    trust: Envelope
    epoch: int = 0
    release_sha256: str | None = None


@dataclass(frozen=True)
class Offer:
    """A release that may be installed, as it was signed, and what to remember from now on."""

    release: Release
    envelope: Envelope
    seen: Seen


def consider(seen: Seen, raw: bytes, fleet: str, now_ms: int) -> Offer:
    """Check a value of ``.releases``; the newest release may come any number of times.

    Args:
        seen: The receiver's memory; a refusal does not change it.
        raw: The value.
        fleet: The receiver's fleet.
        now_ms: Present time; a clock that is behind lets an expired release pass, one that is ahead delays a good one.

    Raises:
        Refused: The release is not taken.
    """
    try:
        record = parse_record(raw)
    except ContractError as error:
        raise Refused(str(error), "malformed") from error
    try:
        known = newer_trust(seen.trust, record.trust)
        trust = read_trust(known)
    except ContractError as error:
        raise Refused(str(error), "trust") from error
    not_understood: NotUnderstood | None = None
    try:
        release = read_release(record.release)
    except NotUnderstood as error:  # refused below, with its epoch, once a believed key stands behind it
        not_understood, release = error, cast(Release, error.statement)
    except ContractError as error:
        raise Refused(str(error), "malformed") from error
    if release.fleet != fleet or trust.fleet != fleet:
        raise Refused(f"release: expected fleet {fleet}, found {release.fleet}", "fleet")
    _check_signature(record.release, release, trust)
    digest = release_digest(record.release)
    if release.epoch < seen.epoch:
        raise Refused(f"release: expected epoch {seen.epoch} or later, found {release.epoch}", "rollback")
    if release.epoch == seen.epoch and digest != seen.release_sha256:
        raise Refused(f"release: there are two different ones of epoch {release.epoch}; the first one stays", "fork")
    if not_understood is not None:
        raise Refused(str(not_understood), "contract", release.epoch)
    if digest != seen.release_sha256:
        _check_new(release, trust, now_ms)
    return Offer(release, record.release, Seen(known, release.epoch, digest))


def check_fresh(release: Release, now_ms: int) -> None:
    """Check that a release may still be newly installed.

    Raises:
        Refused: The release has expired, by this clock.
    """
    if now_ms > release.expires_ms:
        raise Refused(
            f"release: epoch {release.epoch} expired {(now_ms - release.expires_ms) / 3_600_000:.1f} hours ago by this "
            "machine's clock; what runs goes on. Is the controller alive, is the clock right?",
            "expired",
            release.epoch,
        )


def _check_signature(envelope: Envelope, release: Release, trust: Trust) -> None:
    keys = trust.keys_of("release", release.issued_ms)
    try:
        good = signers(envelope, RELEASE_TYPE, keys, "release")
    except ContractError as error:
        raise Refused(str(error), "signature") from error
    if not good:
        found = ", ".join(signature.keyid[:12] for signature in envelope.signatures)
        raise Refused(f"release: signed by {found}, expected a release key that was good when it was issued", "key")


def _check_new(release: Release, trust: Trust, now_ms: int) -> None:
    check_fresh(release, now_ms)
    if release.code_contract_version > CODE_CONTRACT_VERSION:
        raise Refused(
            f"release: made for code contract version {release.code_contract_version}, "
            f"this is {CODE_CONTRACT_VERSION}; update acclimate",
            "contract",
            release.epoch,
        )
    for name, mode in (("stable", release.stable_mode), ("candidate", release.candidate_mode)):
        try:
            served_mode(mode, f"release: {name} set")
        except ContractError as error:
            raise Refused(str(error), "mode", release.epoch) from error
    for digest, mode in sorted({each.key for each in release.in_modes()}) if trust.approvals else ():
        try:
            found = approvers(release.approvals.get(digest, ()), digest, trust, mode)
        except ContractError as error:
            raise Refused(str(error), "unapproved", release.epoch) from error
        if len(found) < trust.approvals:
            what = f"bundle {digest[:12]}" + (f" in mode {mode}" if mode != "observe" else "")
            raise Refused(
                f"release: expected the approval of {what} by {trust.approvals}, found {len(found)}",
                "unapproved",
                release.epoch,
            )
