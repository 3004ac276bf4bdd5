"""What could be released: the versions in the catalogue, what the gates said of each, and whether that still counts."""

from dataclasses import dataclass
from typing import Literal

from acclimate.registry.bundles.member import KINDS, Kind
from acclimate.registry.catalogue import Catalogue
from acclimate.registry.releases.history import History
from acclimate.registry.releases.verdict import Verdict

__all__ = ["Candidate", "list_candidates"]

Gates = Literal["passed", "failed", "forced", "not judged"]


@dataclass(frozen=True)
class Candidate:
    """A version of the catalogue.

    Attributes:
        kind, version, aliases, created_ms: As MLflow has them.
        digest: The bundle's digest, as its verdict says; as MLflow says where it has none; empty where neither does.
        gates: The outcome of its newest believed verdict.
        judged_ms: When it was judged, milliseconds since 1970.
        fits: Whether that verdict was made against what is in force now.
        in_force: ``all`` or ``some`` of the devices have it, or ``none``.
        failed: Names of the gates that failed.
        next: What to do, in one line.
    """

    kind: Kind
    version: int
    aliases: tuple[str, ...]
    created_ms: int
    digest: str
    gates: Gates
    judged_ms: int | None
    fits: bool
    in_force: Literal["all", "some", "none"]
    failed: tuple[str, ...]
    next: str


def list_candidates(catalogue: Catalogue, history: History) -> list[Candidate]:
    """Return all versions, by kind, newest first.

    Raises:
        CatalogueError: MLflow does not answer.
    """
    return [
        _candidate(history, kind, each.version, each.aliases, each.created_ms, each.tags.get("bundle", ""))
        for kind in KINDS
        for each in catalogue.versions(kind)
    ]


def _candidate(
    history: History, kind: Kind, version: int, aliases: tuple[str, ...], created_ms: int, tag: str
) -> Candidate:
    judged = [each for each in history.verdicts if (each.verdict.kind, each.verdict.version) == (kind, version)]
    newest = judged[-1] if judged else None
    verdict = newest.verdict if newest else None
    digest = verdict.digest if verdict else tag
    release = history.newest.release if history.newest else None
    stable = release.stable.get(kind) if release else None
    trial = release.candidate.get(kind) if release else None
    fits = verdict is not None and verdict.champion == (stable.digest if stable else None)
    where: Literal["all", "some", "none"] = "none"
    if stable is not None and stable.digest == digest:
        where = "all"
    elif trial is not None and trial.digest == digest:
        where = "some"
    gates = _outcome(verdict)
    failed = tuple(each.gate for each in verdict.findings if each.outcome == "failed") if verdict else ()
    judged_ms = newest.at_ms if newest else None
    was_stable = any(each.member.digest == digest for each in history.was_stable(kind))
    todo = _next(kind, version, gates, fits, where, was_stable)
    return Candidate(kind, version, aliases, created_ms, digest, gates, judged_ms, fits, where, failed, todo)


def _outcome(verdict: Verdict | None) -> Gates:
    if verdict is None:
        return "not judged"
    return "forced" if verdict.forced is not None else "passed" if verdict.passed else "failed"


def _next(kind: Kind, version: int, gates: Gates, fits: bool, where: str, was_stable: bool) -> str:
    if where != "none":
        return "nothing" if where == "all" else "acclimate history shows the roll-out"
    if was_stable:
        return f"acclimate rollback {kind} returns to it"
    if gates == "not judged" or not fits:
        return f"acclimate gate {kind} {version}"
    return "train a better one" if gates == "failed" else f"acclimate promote {kind} {version}"
