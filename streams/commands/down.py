"""``acclimate down``: stop what ``acclimate up`` has started."""

import json
from pathlib import Path

import click

from acclimate.streams.commands.shared.connection_options import json_option
from acclimate.streams.commands.up import stack_folder_option

__all__ = ["command"]


@click.command(epilog="Example: acclimate down")
@stack_folder_option
@json_option
def command(folder: Path, as_json: bool) -> None:
    """Stop the controller, MLflow's server and Kafka, and wait until they have ended; their data stays."""
    from acclimate.streams.local.stack import stop_stack

    stopped = stop_stack(folder)
    if as_json:
        click.echo(json.dumps({"stopped": stopped, "data_dir": str(folder)}))
    else:
        click.echo(f"stopped: {', '.join(stopped)}" if stopped else f"nothing runs from {folder}")
