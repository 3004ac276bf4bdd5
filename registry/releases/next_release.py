"""Make the release that comes after one: begin a roll-out, widen it, finish it, abort it, renew it. Pure functions."""

from collections.abc import Mapping
from dataclasses import dataclass

from acclimate.adaptation.errors import ContractError
from acclimate.registry.bundles.member import BundleSet, Kind, Member
from acclimate.registry.releases.history import History
from acclimate.registry.releases.mode import Mode
from acclimate.registry.releases.release import Place, Release
from acclimate.registry.releases.rollout import RolloutPolicy
from acclimate.registry.trust.envelope import Envelope

__all__ = ["Request", "aborted", "begun", "finished", "renewed", "set_with", "widened"]

_DAY_MS = 24 * 3600 * 1000
_NO_CANDIDATE: Mapping[str, object] = {"candidate": {}, "candidate_mode": "observe", "share": 0.0}


@dataclass(frozen=True)
class Request:
    """A bundle that somebody wants in force.

    Attributes:
        kind, member: The bundle.
        mode: The mode in which a source is to answer; another kind joins the set in the mode in force.
        back: Whether all devices had it in this mode before; then they get it at once.
        asked_by, approved_by, reason: The people and the reason, for the history.
    """

    kind: Kind
    member: Member
    mode: Mode
    back: bool
    asked_by: str
    approved_by: tuple[str, ...] = ()
    reason: str = ""


def set_with(stable: BundleSet, kind: Kind, member: Member) -> BundleSet:
    """Return a set with one bundle replaced; with a new source goes what was made for the old one.

    Raises:
        ContractError: The bundle was made for another source than the set has.
    """
    if kind == "source":
        return {kind: member} | {
            k: each for k, each in stable.items() if k != "source" and each.source_sha256 == member.digest
        }
    source = stable.get("source")
    if source is None or member.source_sha256 != source.digest:
        found = "no source" if source is None else f"source {source.digest[:12]} (version {source.version})"
        raise ContractError(
            f"{kind} version {member.version} was made for source {(member.source_sha256 or 'none')[:12]}, in force is "
            f"{found}; promote that source first, or make the {kind} for the one in force"
        )
    return {**stable, kind: member}


def begun(
    fleet: str,
    history: History,
    request: Request,
    places: Mapping[str, Place],
    policy: RolloutPolicy,
    salt: str,
    now_ms: int,
) -> Release:
    """Return the release that begins a roll-out; the first one of a fleet, and a return, go to all devices at once.

    Args:
        fleet: The fleet's name.
        history: The fleet's history.
        request: The bundle that is wanted.
        places: The places of the bundle's files, by SHA-256.
        policy: Waves and lifetime.
        salt: 16 hexadecimal digits, drawn for this roll-out.
        now_ms: Present time.

    Raises:
        ContractError: The bundle does not fit those in force.
    """
    before = history.newest.release if history.newest else None
    stable = before.stable if before else {}
    wanted = set_with(stable, request.kind, request.member)
    mode = request.mode if request.kind == "source" else history.mode
    asked = {"asked_by": request.asked_by, "approved_by": request.approved_by, "reason": request.reason[:2000]}
    if not stable or request.back:
        step = "rollback" if request.back else "complete"
        changes = {"step": step, "stable": wanted, "stable_mode": mode, **_NO_CANDIDATE, **asked}
    else:
        changes = {
            "step": "start",
            "stable": stable,
            "candidate": wanted,
            "candidate_mode": mode,
            "salt": salt,
            "share": policy.waves[0],
            **asked,
        }
    return _next(fleet, history, policy, now_ms, places, changes)


def widened(history: History, share: float, reason: str, policy: RolloutPolicy, now_ms: int) -> Release:
    """Return the next wave of the roll-out in progress."""
    return _after(history, policy, now_ms, {"step": "wave", "share": share, "reason": reason[:2000]})


def finished(history: History, reason: str, policy: RolloutPolicy, now_ms: int) -> Release:
    """Return the end of a roll-out that went well: the candidate is the stable set."""
    newest = _newest(history)
    stable = {"stable": newest.candidate, "stable_mode": newest.candidate_mode}
    return _after(history, policy, now_ms, {"step": "complete", **stable, **_NO_CANDIDATE, "reason": reason[:2000]})


def aborted(history: History, reason: str, policy: RolloutPolicy, now_ms: int) -> Release:
    """Return the end of a roll-out that went wrong: all devices are on the stable set again."""
    return _after(history, policy, now_ms, {"step": "abort", **_NO_CANDIDATE, "reason": reason[:2000]})


def renewed(history: History, reason: str, policy: RolloutPolicy, now_ms: int) -> Release:
    """Return the same again with a later end, the approvals there are now, and the next epoch."""
    return _after(history, policy, now_ms, {"step": "renew", "reason": reason[:2000]})


def _newest(history: History) -> Release:
    if history.newest is None:
        raise ContractError("expected a release in force, found none")
    return history.newest.release


def _after(history: History, policy: RolloutPolicy, now_ms: int, changes: Mapping[str, object]) -> Release:
    return _next(_newest(history).fleet, history, policy, now_ms, {}, changes)


def _next(
    fleet: str,
    history: History,
    policy: RolloutPolicy,
    now_ms: int,
    places: Mapping[str, Place],
    changes: Mapping[str, object],
) -> Release:
    newest = history.newest
    values: dict[str, object] = {"fleet": fleet, "epoch": 0, "candidate": {}, "stable": {}, "artifacts": {}}
    if newest is not None:
        fields = ("fleet", "epoch", "asked_by", "approved_by", "salt", "share", "artifacts")
        sets = ("stable", "stable_mode", "candidate", "candidate_mode")
        values = {name: getattr(newest.release, name) for name in (*fields, *sets)}
    values |= changes
    named = _members(values["stable"]) + _members(values["candidate"])
    known = {**newest.release.artifacts, **places} if newest is not None else dict(places)
    approvals: dict[str, tuple[Envelope, ...]] = {}
    for member in named:
        found = history.approvals_of(member.digest)
        if found:
            approvals[member.digest] = found
    lifetime_ms = round(policy.lifetime_days * _DAY_MS)
    return Release.model_validate(
        values
        | {
            "epoch": (newest.release.epoch if newest is not None else 0) + 1,
            "issued_ms": now_ms,
            "expires_ms": now_ms + lifetime_ms,
            "previous": newest.digest if newest is not None else None,
            # Not that of the code at hand: receivers that are updated later must take what they can run.
            "code_contract_version": max((member.code_contract_version for member in named), default=1),
            "artifacts": {sha: known[sha] for member in named for sha in member.files.values()},
            "approvals": approvals,
        }
    )


def _members(bundles: object) -> list[Member]:
    return list(bundles.values()) if isinstance(bundles, dict) else []
