"""``acclimate up``: the whole stack on this machine."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from acclimate.infra.settings import load_settings
from acclimate.streams.commands.shared.connection_options import json_option

__all__ = ["command", "stack_folder_option"]

stack_folder_option = click.option(
    "--data-dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".acclimate"),
    show_default=True,
    help="Folder of everything that the stack keeps.",
)


@click.command(epilog="Example: acclimate up && . .acclimate/env")
@stack_folder_option
@click.option("--fleet", metavar="NAME", help="Prefix of the topics; default ACCLIMATE_FLEET or acclimate.")
@click.option(
    "--kafka-port", type=click.IntRange(0, 65_532), help="Port of Kafka; 0 takes a free one.  [default: 9092]"
)
@click.option(
    "--mlflow-port", type=click.IntRange(0, 65_535), help="Port of MLflow; 0 takes a free one.  [default: 5000]"
)
@json_option
def command(folder: Path, fleet: str | None, kafka_port: int | None, mlflow_port: int | None, as_json: bool) -> None:
    """Start Kafka, MLflow's server and the controller here, in the background.

    All listen on 127.0.0.1 only. The command leaves alone what runs and starts again what is dead; `acclimate down`
    stops all of it. It makes the keys of a new fleet in the folder `keys`, with no approver: anybody who moves an alias
    in MLflow then decides. To work with approvals, set ACCLIMATE_TRUST and ACCLIMATE_RELEASE_KEY to what
    `acclimate keys init` has made.
    """
    from acclimate.streams.local.stack import start_stack

    settings = load_settings(fleet=fleet)
    stack = start_stack(folder, settings, kafka_port, mlflow_port, lambda line: click.echo(line, err=True))
    if as_json:
        click.echo(json.dumps(asdict(stack), default=str))
        return
    for name, address in (("kafka", stack.bootstrap), ("mlflow", stack.mlflow), ("controller", "")):
        state = "started" if name in stack.started else "running"
        click.echo(f"{name:11}{state:9}{address:24}log {stack.logs[name]}")
    if stack.approvals:
        click.echo(f"\nA release needs {stack.approvals} signed approvals.")
    else:
        click.echo("\nAnybody who moves an alias in MLflow decides what is in force.")
    click.echo("Other commands and devices need these variables:\n")
    click.echo("".join(f"  export {name}={value}\n" for name, value in stack.variables.items()))
    here = "" if folder == Path(".acclimate") else f" --data-dir {folder}"
    click.echo(f"Next:\n  . {stack.env_file}\n  acclimate register --help\n  acclimate worker\n  acclimate down{here}")
