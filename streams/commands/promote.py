"""``acclimate promote``: ask for a version to be released."""

import json
from typing import TYPE_CHECKING

import click

from acclimate.infra.settings import Settings, load_settings
from acclimate.streams.commands.shared.connection_options import connection_options, json_option
from acclimate.streams.commands.shared.release_options import (
    approver_key,
    asking_options,
    fleet_trust,
    kind_argument,
    this_user,
    to_kind,
)

if TYPE_CHECKING:
    from acclimate.registry.trust.trust import Trust
    from acclimate.streams.releases.promoting import Asked

__all__ = ["command", "report"]


@click.command(epilog="Example: acclimate promote source 7 --reason 'new pumps' --key approver-ann.pem --wait")
@kind_argument
@click.argument("version", type=click.IntRange(1))
@click.option(
    "--mode",
    type=click.Choice(["observe", "always"]),
    help="Mode in which a source is to answer: observe: the source itself; always: LeanTTA on shifted windows. "
    "Default: the mode in force, at first observe.",
)
@asking_options
@connection_options
@json_option
def command(
    kind: str,
    version: int,
    mode: str | None,
    reason: str,
    key: str | None,
    wait: bool,
    timeout: float,
    bootstrap: str | None,
    fleet: str | None,
    as_json: bool,
) -> int:
    """Ask for VERSION of KIND to be released, or for another mode of the version in force.

    Where the fleet asks for approvals, the command signs one with your key; else it moves the alias `champion` in
    MLflow, as you may do on MLflow's page. The controller then checks the gates' verdicts and rolls out in waves. With
    --wait, the exit code is 1 when the version was refused or aborted, or is not everywhere when the time is over.
    """
    if mode is not None and kind != "source":
        raise click.UsageError(f"--mode: a source has a mode, {kind} has none; leave --mode out")
    settings = load_settings(bootstrap=bootstrap, fleet=fleet, approver_key=key)
    from acclimate.registry.catalogue import Catalogue
    from acclimate.streams.releases.promoting import ask

    trust = fleet_trust(settings)
    catalogue = Catalogue(settings.mlflow, settings.fleet)
    key_given, who = approver_key(settings), this_user()
    asked = ask(settings, catalogue, trust, "promote", to_kind(kind), version, reason, key_given, who, mode)
    return report(settings, trust, asked, wait, timeout, as_json)


def report(settings: Settings, trust: "Trust", asked: "Asked", wait: bool, timeout_s: float, as_json: bool) -> int:
    """Say what was asked for and, if wanted, what becomes of it; return the exit code."""
    from acclimate.streams.releases.promoting import watch

    about = {
        "action": asked.action,
        "kind": asked.kind,
        "version": asked.version,
        "bundle": asked.digest,
        "mode": asked.mode,
    }
    if not as_json:
        how = "a signed approval" if asked.by == "approval" else "the alias champion in MLflow"
        mode_text = f" in mode {asked.mode}" if asked.kind == "source" else ""
        click.echo(f"asked for {asked.kind} version {asked.version} (bundle {asked.digest[:12]}){mode_text} by {how}")
    if not wait:
        if as_json:
            click.echo(json.dumps({**about, "asked_by": asked.by}))
        else:
            click.echo("`acclimate history` shows what the controller does with it; --wait watches")
        return 0
    last = None
    for last in watch(settings, trust, asked, timeout_s):
        if as_json:
            click.echo(json.dumps({**about, **vars(last)}))
        else:
            click.echo(f"epoch {last.epoch}  {last.step:9} {last.share:4.0%} of the devices  {last.message}")
    if last is not None and last.ended:
        return 0 if last.good else 1
    click.echo(f"error: not ended after {timeout_s:.0f} s; `acclimate history` shows more", err=True)
    return 1
