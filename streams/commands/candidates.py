"""``acclimate candidates``: what could be released."""

import json
from typing import TYPE_CHECKING

import click

from acclimate.infra.settings import load_settings
from acclimate.streams.commands.shared.connection_options import connection_options, json_option
from acclimate.streams.commands.shared.release_options import fleet_trust, shown_time

if TYPE_CHECKING:
    from acclimate.streams.releases.judging.candidates import Candidate

__all__ = ["command"]


@click.command(epilog="Example: acclimate candidates --json")
@connection_options
@json_option
def command(bootstrap: str | None, fleet: str | None, as_json: bool) -> None:
    """Show the versions in MLflow, what the gates said about each, and what to do next.

    Only signed verdicts of the history count; tags in MLflow are for people.
    """
    settings = load_settings(bootstrap=bootstrap, fleet=fleet)
    from acclimate.registry.catalogue import Catalogue
    from acclimate.streams.releases.history import read_history
    from acclimate.streams.releases.judging.candidates import list_candidates

    history = read_history(settings, fleet_trust(settings))
    rows = list_candidates(Catalogue(settings.mlflow, settings.fleet), history)
    if as_json:
        click.echo(json.dumps([vars(row) for row in rows]))
        return
    if not rows:
        click.echo("no version is registered; `acclimate register FOLDER` registers a bundle")
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("version", "bundle", "registered", "aliases", "state", "next", box=None, header_style="bold")
    for column in table.columns[:4]:
        column.no_wrap = True
    for row in rows:
        table.add_row(
            f"{row.kind} {row.version}",
            escape(row.digest[:12]),
            shown_time(row.created_ms)[:10],
            escape(", ".join(row.aliases)),
            _state(row),
            escape(row.next),
        )
    Console(highlight=False).print(table)


def _state(row: "Candidate") -> str:
    if row.in_force != "none":
        return f"in force for {row.in_force} devices"
    failed = f": {', '.join(row.failed)}" if row.failed else ""
    other = ", but against another champion" if row.gates != "not judged" and not row.fits else ""
    return f"{row.gates}{failed}{other}"
