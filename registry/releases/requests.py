"""Decide whether a version may be released, from what is in force, judged and approved alone."""

from dataclasses import dataclass
from typing import Literal

from acclimate.adaptation.errors import ContractError
from acclimate.registry.bundles.member import Kind, Member
from acclimate.registry.releases.approval import approvers
from acclimate.registry.releases.history import History
from acclimate.registry.releases.mode import served_mode
from acclimate.registry.releases.next_release import Request, set_with
from acclimate.registry.releases.release import InMode
from acclimate.registry.releases.verdict import Verdict
from acclimate.registry.trust.trust import Trust

__all__ = ["Held", "judge"]


@dataclass(frozen=True)
class Held:
    """A request that is not carried out: not yet, or not at all; the message says what is to be done."""

    about: Literal["waits", "refused"]
    message: str


def judge(history: History, trust: Trust, kind: Kind, wanted: InMode, asked_by: str, reason: str) -> Request | Held:
    """Say whether a bundle is rolled out now.

    A bundle that all devices had before in this mode interrupts a roll-out. A bundle that all devices had before, in
    any mode, needs no new verdict. Any other needs a verdict of the gates against the very bundle that is in force now.

    Args:
        history: The fleet's history.
        trust: The keys to believe, and the number of approvals needed.
        kind, wanted: The bundle, in the mode that is asked for; its files and the signature of its manifest have been
            checked.
        asked_by, reason: The person and the reason, for the history.
    """
    member = wanted.member
    stable = history.newest.release.stable if history.newest else {}
    what = f"{kind} version {member.version}"
    before = history.was_stable(kind)
    back = any(each.key == wanted.key for each in before)
    try:
        mode = served_mode(wanted.mode, what)
    except ContractError as error:
        return Held("refused", str(error))
    try:
        set_with(stable, kind, member)
        signed = approvers(history.approvals_of(member.digest), member.digest, trust, mode)
    except ContractError as error:
        return Held("waits", str(error))
    if len(signed) < trust.approvals:
        of = f" for mode {mode}" if mode != "observe" else ""
        text = f"{what}: {len(signed)} of {trust.approvals} approvals{of}; `acclimate promote` signs one"
        return Held("waits", text)
    if not back:
        if all(each.member.digest != member.digest for each in before):
            held = _gates(history, kind, member, stable[kind].digest if kind in stable else None)
            if held is not None:
                return held
        if history.newest is not None and history.newest.release.candidate:
            return Held("waits", f"{what}: waits for the end of the roll-out in progress")
    return Request(kind, member, mode, back, asked_by, tuple(sorted(trust.owner(key) for key in signed)), reason)


def _gates(history: History, kind: Kind, member: Member, champion: str | None) -> Held | None:
    verdict = history.verdict_of(member.digest, champion)
    what = f"{kind} version {member.version}"
    if verdict is None:
        against = "nothing, as none is in force" if champion is None else f"{champion[:12]}, which is in force"
        return Held(
            "waits", f"{what}: no verdict of the gates against {against}; run `acclimate gate {kind} {member.version}`"
        )
    if not verdict.passed:
        return Held("refused", f"{what}: failed {_failed(verdict)}; `acclimate gate --force REASON` overrides")
    return None


def _failed(verdict: Verdict) -> str:
    return ", ".join(f"{found.gate} ({found.message})" for found in verdict.findings if found.outcome == "failed")[:800]
