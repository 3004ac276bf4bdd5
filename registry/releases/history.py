"""All that was ever in force in a fleet, asked for, judged and approved: ``.history``, read and checked.

A release is believed if a release key of the fleet signed it, or if a believed one names it as its ancestor: so that
what was in force stays known when its key has been rotated out or revoked.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from acclimate.adaptation.errors import ContractError
from acclimate.registry.bundles.member import Kind
from acclimate.registry.canonical import Name
from acclimate.registry.releases.approval import APPROVAL_TYPE, Approval, read_approval
from acclimate.registry.releases.mode import Mode
from acclimate.registry.releases.release import RELEASE_TYPE, InMode, Release, read_release, release_digest
from acclimate.registry.releases.remark import REMARK_TYPE, Remark, read_remark
from acclimate.registry.releases.verdict import VERDICT_TYPE, Verdict, read_verdict
from acclimate.registry.trust.envelope import Envelope, signers
from acclimate.registry.trust.trust import Trust

__all__ = ["Approved", "Entry", "History", "Judged", "Released", "Remarked", "read_entries"]


@dataclass(frozen=True)
class Entry:
    """One statement as it was appended.

    Attributes:
        offset: The entry's offset.
        at_ms: The time at which the broker took it, in milliseconds since 1970.
        envelope: The statement; its signature is not looked at yet.
    """

    offset: int
    at_ms: int
    envelope: Envelope


@dataclass(frozen=True)
class Released:
    """A release that was in force from ``at_ms`` on, its place in the history, and its digest."""

    offset: int
    at_ms: int
    envelope: Envelope
    release: Release
    digest: str


@dataclass(frozen=True)
class Approved:
    """An approval: a request, and for ever a word for its bundle."""

    offset: int
    at_ms: int
    envelope: Envelope
    approval: Approval


@dataclass(frozen=True)
class Judged:
    """A verdict of the gates."""

    at_ms: int
    verdict: Verdict


@dataclass(frozen=True)
class Remarked:
    """A remark of the controller."""

    at_ms: int
    remark: Remark


@dataclass(frozen=True)
class History:
    """The believed entries, each kind oldest first; ``passed_over`` counts the others."""

    releases: tuple[Released, ...] = ()
    approvals: tuple[Approved, ...] = ()
    verdicts: tuple[Judged, ...] = ()
    remarks: tuple[Remarked, ...] = ()
    passed_over: int = 0

    @property
    def newest(self) -> Released | None:
        """The release in force."""
        return self.releases[-1] if self.releases else None

    @property
    def mode(self) -> Mode | Name:
        """The mode in force, of the stable set; ``observe`` where nothing is in force."""
        return self.releases[-1].release.stable_mode if self.releases else "observe"

    def at(self, time_ms: int) -> Released | None:
        """Return the release that was in force at a time."""
        return next((each for each in reversed(self.releases) if each.at_ms <= time_ms), None)

    def verdict_of(self, digest: str, champion: str | None) -> Verdict | None:
        """Return the newest verdict about a bundle against this champion (digest)."""
        found = [j.verdict for j in self.verdicts if j.verdict.digest == digest and j.verdict.champion == champion]
        return found[-1] if found else None

    def approvals_of(self, digest: str) -> tuple[Envelope, ...]:
        """Return all approvals of a bundle that this version understands, each approver's newest for each mode."""
        newest: dict[tuple[str, ...], Envelope] = {}
        for each in self.approvals:
            if each.approval.digest == digest and each.approval.asked_kind is not None:
                newest[each.approval.mode, *sorted(s.keyid for s in each.envelope.signatures)] = each.envelope
        return tuple(newest.values())

    def open_approvals(self) -> tuple[Approved, ...]:
        """Return the approvals that no later release has carried out, oldest first."""
        done = {used.key: each.offset for each in self.releases for used in each.release.in_modes()}
        return tuple(
            each for each in self.approvals if each.offset > done.get((each.approval.digest, each.approval.mode), -1)
        )

    def was_stable(self, kind: Kind) -> list[InMode]:
        """Return the bundles of a kind that all devices ever had, each in each of its modes, the newest last."""
        found: dict[tuple[str, str], InMode] = {}
        for each in self.releases:
            used = each.release.stable_of(kind)
            if used is not None:
                found.pop(used.key, None)
                found[used.key] = used
        return list(found.values())

    def rollout_began(self) -> Released | None:
        """Return the release that began the roll-out in progress; None where there is none."""
        return next((each for each in reversed(self._in_progress()) if each.release.step == "start"), None)

    def wave_began(self) -> Released | None:
        """Return the release that began the wave in progress; what only renewed it is passed over."""
        return next((each for each in reversed(self._in_progress()) if each.release.step != "renew"), None)

    def aborted(self, kind: Kind) -> InMode | None:
        """Return the candidate whose roll-out ended last by an abort, if nothing came after it."""
        rollouts = [each.release for each in self.releases if each.release.step != "renew"]
        if len(rollouts) < 2 or rollouts[-1].step != "abort":
            return None
        return rollouts[-2].candidate_of(kind)

    def _in_progress(self) -> tuple[Released, ...]:
        return self.releases if self.releases and self.releases[-1].release.candidate else ()


@dataclass
class _Reading:
    """The statements gathered while entries are read."""

    releases: dict[str, Released] = field(default_factory=dict)
    signed: set[str] = field(default_factory=set)
    approvals: list[Approved] = field(default_factory=list)
    verdicts: list[Judged] = field(default_factory=list)
    remarks: list[Remarked] = field(default_factory=list)
    passed_over: int = 0


def read_entries(entries: Iterable[Entry], trust: Trust) -> History:
    """Return what is believed of a history.

    Args:
        entries: The entries in the order of their offsets.
        trust: The keys to believe.
    """
    reading = _Reading()
    for entry in entries:
        try:
            _read(entry, trust, reading)
        except ContractError:
            reading.passed_over += 1
    believed = _with_ancestors(reading.releases, reading.signed)
    return History(
        releases=tuple(each for digest, each in reading.releases.items() if digest in believed),
        approvals=tuple(reading.approvals),
        verdicts=tuple(reading.verdicts),
        remarks=tuple(reading.remarks),
        passed_over=reading.passed_over + len(reading.releases) - len(believed),
    )


def _read(entry: Entry, trust: Trust, reading: _Reading) -> None:
    envelope, at_ms = entry.envelope, entry.at_ms
    if envelope.payloadType == RELEASE_TYPE:
        release = read_release(envelope)
        if release.fleet != trust.fleet:
            raise ContractError(f"release: expected fleet {trust.fleet}, found {release.fleet}")
        digest = release_digest(envelope)
        if digest in reading.releases:
            return  # sent again after an answer was lost
        reading.releases[digest] = Released(entry.offset, at_ms, envelope, release, digest)
        if signers(envelope, RELEASE_TYPE, trust.keys_of("release", release.issued_ms), "release"):
            reading.signed.add(digest)
    elif envelope.payloadType == APPROVAL_TYPE:
        # The same approval again is somebody's replay, no new wish.
        if all(each.envelope.payload != envelope.payload for each in reading.approvals):
            reading.approvals.append(Approved(entry.offset, at_ms, envelope, read_approval(envelope, trust)))
    elif envelope.payloadType == VERDICT_TYPE:
        reading.verdicts.append(Judged(at_ms, read_verdict(envelope, trust)))
    elif envelope.payloadType == REMARK_TYPE:
        reading.remarks.append(Remarked(at_ms, read_remark(envelope, trust)))
    else:
        raise ContractError(f"history: a statement of unknown type {envelope.payloadType[:100]!r}")


def _with_ancestors(releases: Mapping[str, Released], signed: set[str]) -> set[str]:
    believed: set[str] = set()
    for digest in signed:
        ancestor: str | None = digest
        while ancestor is not None and ancestor in releases and ancestor not in believed:
            believed.add(ancestor)
            ancestor = releases[ancestor].release.previous
    return believed
