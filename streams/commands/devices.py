"""``acclimate devices``: what really runs where."""

import json
import time

import click

from acclimate.infra.settings import load_settings
from acclimate.streams.commands.shared.connection_options import connection_options, json_option
from acclimate.streams.commands.shared.release_options import fleet_trust, shown_time

__all__ = ["command"]


@click.command(epilog="Example: acclimate devices --since 24 --behind")
@click.option(
    "--since",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0.01, 24 * 365),
    help="Number of hours to look back.",
)
@click.option("--behind", is_flag=True, help="Show only those that run an older epoch than the one in force.")
@connection_options
@json_option
def command(since: float, behind: bool, bootstrap: str | None, fleet: str | None, as_json: bool) -> int:
    """Show what workers and devices say that they run, and which bundle answered each device in which mode.

    A device counts for a roll-out only by its answers: real events that name the epoch. The exit code is 1 where
    --behind finds any.
    """
    settings = load_settings(bootstrap=bootstrap, fleet=fleet)
    from acclimate.streams.releases.history import read_history
    from acclimate.streams.releases.running import device_rows, receiver_rows

    newest = read_history(settings, fleet_trust(settings)).newest
    epoch = newest.release.epoch if newest else 0
    receivers = [row for row in receiver_rows(settings) if not behind or row.epoch < epoch]
    now_ms = time.time_ns() // 1_000_000
    answered = device_rows(settings, now_ms - round(since * 3_600_000))
    devices = [row for _, row in sorted(answered.items()) if not behind or row.epoch < epoch]
    code = 1 if behind and (receivers or devices) else 0
    if as_json:
        rows = {"receivers": [vars(row) for row in receivers], "devices": [vars(row) for row in devices]}
        click.echo(json.dumps({"epoch": epoch, **rows}))
        return code

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    console.print(f"in force: epoch {epoch}" + (f", {newest.release.step}" if newest else ""))
    columns = ("receiver", "epoch", "bundle", "mode", "last word (UTC)", "refused")
    table = Table(*columns, box=None, header_style="bold")
    for row in receivers:
        refused = f"{row.refusals}: {(row.last_refusal or '')[:60]}" if row.refusals else ""
        refused = "[red]stale[/] " + escape(refused) if row.stale else escape(refused)
        table.add_row(
            escape(row.name),
            _epoch(row.epoch, epoch),
            (row.bundle or "none")[:12],
            row.mode or "",
            shown_time(row.at_ms),
            refused,
        )
    console.print(table if receivers else "no receiver has said anything")
    columns = ("device", "epoch", "bundle", "mode", "last answer (UTC)", "windows")
    table = Table(*columns, box=None, header_style="bold")
    for each in devices:
        table.add_row(
            escape(each.device),
            _epoch(each.epoch, epoch),
            each.bundle[:12],
            each.mode,
            shown_time(each.at_ms),
            str(each.windows),
        )
    console.print(table if devices else f"no device was answered in the last {since:g} hours")
    return code


def _epoch(found: int, in_force: int) -> str:
    return f"{found}" if found >= in_force else f"[red]{found}[/]"
