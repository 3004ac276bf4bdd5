"""`acclimate broker`: a local Apache Kafka that stays up between commands."""

import json
from dataclasses import asdict
from pathlib import Path

import click

__all__ = ["command"]

_DATA_DIR = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, resolve_path=True, path_type=Path),
    default=Path(".acclimate/broker"),
    show_default=True,
    help="Folder of Kafka's records, logs and configuration.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group(name="broker")
def command() -> None:
    """Run a local Apache Kafka on 127.0.0.1; it needs no Java and no Docker.

    \b
    Example:
      acclimate broker start
      acclimate fleet ...
      acclimate broker stop
    """


@command.command()
@_DATA_DIR
@click.option("--nodes", type=click.Choice(["1", "3"]), default="1", show_default=True, help="Number of nodes.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_532),
    default=9092,
    show_default=True,
    help="Port of the first node; the others take the next ports. 0 takes free ones.",
)
@click.option("--heap", default="512m", show_default=True, help="Largest Java heap of each node.")
@click.option(
    "--log-level",
    type=click.Choice(["trace", "debug", "info", "warn", "error"]),
    default="warn",
    show_default=True,
    help="Lowest level that the log files record.",
)
@click.option("--fresh", is_flag=True, help="Delete the records of earlier runs first.")
@_JSON
def start(data_dir: Path, nodes: str, port: int, heap: str, log_level: str, fresh: bool, as_json: bool) -> None:
    """Start Kafka and return once it serves; it keeps the records of earlier runs.

    The first start downloads 45 MB of jars; every start checks them against the lock file.

    \b
    Example:
      acclimate broker start
      acclimate broker start --nodes 3 --port 0 --data-dir /var/tmp/kafka --fresh
    """
    from acclimate.infra.broker_service import start_service
    from acclimate.infra.kafka_cluster import ClusterOptions

    options = ClusterOptions(nodes=int(nodes), port=port, heap=heap, log_level=log_level)
    status, started = start_service(data_dir, options, fresh, notify=lambda line: click.echo(line, err=True))
    if as_json:
        click.echo(json.dumps({"started": started} | asdict(status)))
        return
    click.echo(f"{'started' if started else 'already running'}: {status.bootstrap}")
    click.echo(f"  export ACCLIMATE_BOOTSTRAP={status.bootstrap}")
    for node in status.nodes:
        click.echo(f"  node {node.node_id}  process {node.pid}  log {node.log}")


@command.command()
@_DATA_DIR
@_JSON
def stop(data_dir: Path, as_json: bool) -> None:
    """Stop the Kafka of a data folder; its records stay.

    \b
    Example:
      acclimate broker stop
    """
    from acclimate.infra.broker_service import stop_service

    before = stop_service(data_dir)
    if as_json:
        click.echo(json.dumps({"stopped": before.running, "data_dir": before.data_dir}))
    elif before.running:
        click.echo(f"stopped: {before.bootstrap}")
    else:
        click.echo(f"no broker runs from {data_dir}")


@command.command()
@_DATA_DIR
@_JSON
def status(data_dir: Path, as_json: bool) -> None:
    """Show which nodes run, and where.

    \b
    Example:
      acclimate broker status --json
    """
    from acclimate.infra.broker_service import read_status

    found = read_status(data_dir)
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return
    click.echo(f"running: {found.bootstrap}" if found.running else f"no broker runs from {data_dir}")
    for node in found.nodes:
        state = "serving" if node.serving else "running, not serving" if node.running else "dead"
        click.echo(f"  node {node.node_id}  port {node.port}  process {node.pid}  {state}  log {node.log}")
