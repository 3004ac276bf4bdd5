"""``acclimate rollback``: ask for the return to what was in force before."""

import click

from acclimate.adaptation.errors import ContractError
from acclimate.infra.settings import load_settings
from acclimate.streams.commands.promote import report
from acclimate.streams.commands.shared.connection_options import connection_options, json_option
from acclimate.streams.commands.shared.release_options import (
    approver_key,
    asking_options,
    fleet_trust,
    kind_argument,
    this_user,
    to_kind,
)

__all__ = ["command"]


@click.command(epilog="Example: acclimate rollback source --reason 'false alarms on line 3' --wait")
@kind_argument
@click.option("--to", "version", type=click.IntRange(1), help="Version to return to; default: the one before.")
@asking_options
@connection_options
@json_option
def command(
    kind: str,
    version: int | None,
    reason: str,
    key: str | None,
    wait: bool,
    timeout: float,
    bootstrap: str | None,
    fleet: str | None,
    as_json: bool,
) -> int:
    """Ask for the return of KIND to what all devices had before, in the mode in which they had it.

    No gate judges it again, and all devices get it at once. A rollback during a roll-out ends that roll-out.
    `acclimate promote --help` says who may ask.
    """
    settings = load_settings(bootstrap=bootstrap, fleet=fleet, approver_key=key)
    from acclimate.registry.catalogue import Catalogue
    from acclimate.streams.releases.history import read_history
    from acclimate.streams.releases.promoting import ask, before

    trust = fleet_trust(settings)
    history = read_history(settings, trust)
    chosen = to_kind(kind)
    if version is None:
        back = before(history, chosen)
    else:
        had = {each.member.version: each for each in history.was_stable(chosen)}
        if version not in had:
            text = f"rollback: {kind} version {version} was never on all devices, which had {sorted(had)}; promote it"
            raise ContractError(text)
        back = had[version]
    catalogue = Catalogue(settings.mlflow, settings.fleet)
    key_given, who, wanted = approver_key(settings), this_user(), back.member.version
    asked = ask(settings, catalogue, trust, "rollback", chosen, wanted, reason, key_given, who, back.mode)
    return report(settings, trust, asked, wait, timeout, as_json)
