"""``acclimate history``: who had what, who asked, who approved, and why."""

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from acclimate.infra.settings import load_settings
from acclimate.streams.commands.shared.connection_options import connection_options, json_option
from acclimate.streams.commands.shared.release_options import fleet_trust, shown_time

if TYPE_CHECKING:
    from acclimate.registry.bundles.member import BundleSet
    from acclimate.registry.releases.history import History, Released
    from acclimate.registry.trust.trust import Trust

__all__ = ["command"]


class Time(click.ParamType):
    """A moment in ISO 8601, as milliseconds since 1970; UTC where it does not say."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time such as 2026-11-29T07:40 or 2026-11-29T08:40:00+01:00", param, ctx)
        return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


@click.command(epilog="Example: acclimate history --at 2026-11-29T07:40 --device pump-7")
@click.option("--at", "at_ms", type=Time(), help="Show what was in force at this time, such as 2026-11-29T07:40 (UTC).")
@click.option("--device", metavar="ID", help="Show which set this device was on; with --at.")
@click.option("--last", default=30, show_default=True, type=click.IntRange(1), help="Number of entries to show.")
@connection_options
@json_option
def command(
    at_ms: int | None, device: str | None, last: int, bootstrap: str | None, fleet: str | None, as_json: bool
) -> int:
    """Show what was in force, asked for, judged and approved.

    The command shows only entries that a key of the fleet has signed, and counts the others. The predictions tell what
    a device was really answered with: each one names epoch and bundle.
    """
    settings = load_settings(bootstrap=bootstrap, fleet=fleet)
    from acclimate.streams.releases.history import read_history

    trust = fleet_trust(settings)
    history = read_history(settings, trust)
    if at_ms is not None:
        return _show_at(history, at_ms, device, as_json)
    entries = _entries(history, trust)[-last:]
    if as_json:
        click.echo(json.dumps({"entries": entries, "passed_over": history.passed_over}))
        return 0
    for entry in entries:
        click.echo(f"{entry['time']}  {entry['what']:9} {entry['text']}")
    if not entries:
        click.echo("nothing has happened yet; `acclimate register` and `acclimate promote` begin it")
    if history.passed_over:
        click.echo(f"{history.passed_over} entries that no believed key has signed were passed over")
    return 0


def _show_at(history: "History", at_ms: int, device: str | None, as_json: bool) -> int:
    found = history.at(at_ms)
    if found is None:
        click.echo(json.dumps(None) if as_json else f"at {shown_time(at_ms)} nothing was in force")
        return 0
    about = _released(found) | {"at": shown_time(at_ms)}
    if device is not None:
        had = {"had": _versions(found.release.chosen(device)), "mode": found.release.chosen_mode(device)}
        about |= {"device": device, **had}
    if as_json:
        click.echo(json.dumps(about))
        return 0
    release = found.release
    approved = f", approved by {', '.join(release.approved_by)}" if release.approved_by else ""
    click.echo(f"at {shown_time(at_ms)}: epoch {release.epoch} ({release.step}), since {shown_time(found.at_ms)}")
    click.echo(f"  asked by {release.asked_by}{approved}")
    click.echo(f"  reason   {release.reason or '-'}")
    click.echo(f"  stable   {_set_text(release.stable, release.stable_mode)}")
    if release.candidate:
        click.echo(f"  {release.share:4.0%}     {_set_text(release.candidate, release.candidate_mode)}")
    if device is not None:
        click.echo(f"  {device} had {_set_text(release.chosen(device), release.chosen_mode(device))}")
    return 0


def _entries(history: "History", trust: "Trust") -> list[dict[str, Any]]:
    found: list[tuple[int, dict[str, Any]]] = []
    for each in history.releases:
        release = each.release
        approved = f", approved by {', '.join(release.approved_by)}" if release.approved_by else ""
        share = f" to {release.share:.0%} of the devices" if release.candidate else ""
        changed = (release.candidate, release.candidate_mode) if share else (release.stable, release.stable_mode)
        text = f"epoch {release.epoch}{share}: {_set_text(*changed)}; asked by "
        text += f"{release.asked_by}{approved}" + (f"; {release.reason}" if release.reason else "")
        found.append((each.at_ms, {"what": release.step, "text": text, "release": _released(each)}))
    for approved_entry in history.approvals:
        approval = approved_entry.approval
        owners = sorted(trust.owner(signature.keyid) for signature in approved_entry.envelope.signatures)
        mode = f" in mode {approval.mode}" if approval.kind == "source" else ""
        text = f"{approval.action} {approval.kind} version {approval.version} ({approval.digest[:12]}){mode} by "
        text += f"{', '.join(owners)}" + (f"; {approval.reason}" if approval.reason else "")
        text += "" if approval.asked_kind else "; this version does not understand it and passes over it"
        about = approval.model_dump(mode="json") | {"mode": approval.mode, "by": owners}
        found.append((approved_entry.at_ms, {"what": "approved", "text": text, "approval": about}))
    for judged in history.verdicts:
        verdict = judged.verdict
        outcomes = ", ".join(f"{finding.gate} {finding.outcome}" for finding in verdict.findings)
        text = f"{verdict.kind} version {verdict.version} ({verdict.digest[:12]}) by {verdict.by}: {outcomes}"
        text += f"; forced: {verdict.forced}" if verdict.forced else ""
        what = "passed" if verdict.passed else "failed"
        found.append((judged.at_ms, {"what": what, "text": text, "verdict": verdict.model_dump(mode="json")}))
    for remarked in history.remarks:
        remark = remarked.remark
        about = remark.model_dump(mode="json")
        found.append((remarked.at_ms, {"what": remark.about, "text": remark.message, "report": about}))
    return [{"time": shown_time(at_ms), "at_ms": at_ms, **entry} for at_ms, entry in sorted(found, key=lambda e: e[0])]


def _released(each: "Released") -> dict[str, Any]:
    release = each.release
    return {
        "epoch": release.epoch,
        "step": release.step,
        "since": shown_time(each.at_ms),
        "since_ms": each.at_ms,
        "asked_by": release.asked_by,
        "approved_by": list(release.approved_by),
        "reason": release.reason,
        "stable": _versions(release.stable),
        "stable_mode": release.stable_mode,
        "candidate": _versions(release.candidate),
        "candidate_mode": release.candidate_mode if release.candidate else None,
        "share": release.share,
        "release": each.digest,
    }


def _versions(bundles: "BundleSet") -> dict[str, dict[str, Any]]:
    return {kind: {"version": member.version, "bundle": member.digest} for kind, member in bundles.items()}


def _set_text(bundles: "BundleSet", mode: str) -> str:
    named = [f"{kind} {member.version} ({member.digest[:12]})" for kind, member in bundles.items()]
    return f"{', '.join(named)}, mode {mode}" if named else "none"
