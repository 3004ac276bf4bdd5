"""``acclimate diff``: what differs between two versions."""

import json

import click

from acclimate.infra.settings import Settings, load_settings
from acclimate.streams.commands.shared.connection_options import json_option
from acclimate.streams.commands.shared.release_options import KIND_NAMES, fleet_trust, to_kind

__all__ = ["command"]


@click.command(epilog="Example: acclimate diff 6 7")
@click.argument("before", type=click.IntRange(1), metavar="V1")
@click.argument("after", type=click.IntRange(1), metavar="V2")
@click.option(
    "--kind",
    type=click.Choice(KIND_NAMES),
    default="source",
    show_default=True,
    help="Registered model whose versions to compare.",
)
@click.option("--fleet", metavar="NAME", help="Fleet of the registered model; default ACCLIMATE_FLEET or acclimate.")
@json_option
def command(before: int, after: int, kind: str, fleet: str | None, as_json: bool) -> None:
    """Show what differs between versions V1 and V2 in MLflow.

    The command shows settings, names and figures of the training one by one, and for each weight how far it has moved,
    relative to its norm. Where ACCLIMATE_TRUST is set, it asks Kafka as well for the mode that all devices had with
    each version last.
    """
    settings = load_settings(fleet=fleet)
    from acclimate.registry.bundles.difference import difference
    from acclimate.registry.catalogue import Catalogue

    catalogue = Catalogue(settings.mlflow, settings.fleet)
    stored = [catalogue.download(to_kind(kind), version).files for version in (before, after)]
    found = difference(stored[0], stored[1])
    modes = _last_modes(settings, kind)
    values = dict(found.values)
    if modes.get(before) != modes.get(after):
        values["mode"] = (modes.get(before), modes.get(after))
    if as_json:
        click.echo(json.dumps({"values": values, "tensors": found.tensors}))
        return

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    table = Table("what", f"{kind} {before}", f"{kind} {after}", box=None, header_style="bold")
    for path, (old, new) in values.items():
        table.add_row(escape(path), escape(_text(old)), escape(_text(new)))
    console.print(table if values else "settings, names and training are the same")
    table = Table("weights", "moved by", box=None, header_style="bold")
    for name, moved in sorted(found.tensors.items(), key=lambda each: -(each[1] if each[1] is not None else 1e300)):
        table.add_row(escape(name), "another shape" if moved is None else f"{100 * moved:.2f} %")
    console.print(table if found.tensors else "all tensors are the same")


def _last_modes(settings: Settings, kind: str) -> dict[int, str]:
    """Return the mode that all devices had with a version last, by version; releases alone know it, and sources."""
    if settings.trust is None or kind != "source":
        return {}
    from acclimate.streams.releases.history import read_history

    had = read_history(settings, fleet_trust(settings)).was_stable("source")
    return {each.member.version: each.mode for each in had}


def _text(value: object) -> str:
    return "-" if value is None else str(value)
