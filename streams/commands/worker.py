"""``acclimate worker``: answer what devices publish."""

import asyncio
import json
import logging
from pathlib import Path

import click

from acclimate.infra.settings import load_settings
from acclimate.streams.commands.shared.connection_options import connection_options, json_option

__all__ = ["command"]


@click.command(epilog="Example: acclimate worker --bundle out/bundle --mode always")
@connection_options
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    help="Serve the bundle in this folder and follow no releases; default ACCLIMATE_BUNDLE.",
)
@click.option(
    "--mode",
    type=click.Choice(["observe", "always"]),
    help="With a bundle: observe: the source answers; always: LeanTTA answers shifted windows. Default ACCLIMATE_MODE "
    "or observe.",
)
@click.option(
    "--partitions",
    default=6,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Number of partitions of topics that do not exist yet.",
)
@json_option
def command(
    bootstrap: str | None, fleet: str | None, bundle: Path | None, mode: str | None, partitions: int, as_json: bool
) -> int:
    """Answer what devices publish, until SIGTERM.

    Start as many workers as you like, up to the number of partitions; they share the work. In mode `observe` the source
    model answers, and the worker only computes and records what LeanTTA would answer; in mode `always` LeanTTA answers
    where the measured shift of a window reaches the bundle's threshold. Without a bundle, the worker follows the
    fleet's signed releases, which also say the mode: it needs ACCLIMATE_TRUST, and keeps what it has received under
    ACCLIMATE_STATE, one folder per worker. With --json, it prints its settings as one line on standard output.
    """
    settings = load_settings(bootstrap=bootstrap, fleet=fleet, bundle=bundle, mode=mode)
    if mode is not None and settings.bundle is None:
        raise click.UsageError(
            "--mode goes with --bundle DIR; without a bundle the fleet's release says the mode, and `acclimate promote "
            "source VERSION --mode MODE` asks for another one"
        )
    text = json.dumps({"settings": settings.masked()})
    click.echo(text, err=not as_json)

    from acclimate.registry.bundles.source_bundle import read_bundle
    from acclimate.streams.agents.worker import run_worker
    from acclimate.streams.releases.receiver import Receiver
    from acclimate.streams.serving.served import InForce, in_force_of, serve
    from acclimate.streams.wire.topics import create_topics, differing_topics

    logging.getLogger("acclimate.streams").setLevel(logging.INFO)
    # On a fresh broker the first question for the coordinator always fails, as an error; the watchdog tells a real one.
    logging.getLogger("aiokafka.consumer.group_coordinator").setLevel(logging.CRITICAL)
    # Before Kafka is asked: what is wrong here is said at once.
    receiver: Receiver[InForce] | None = None
    in_force: InForce | None
    if settings.bundle is not None:
        in_force = InForce(serve(read_bundle(settings.bundle), settings.mode))
    else:
        receiver = Receiver(settings, ("source",), in_force_of)
        in_force = receiver.resume()
    create_topics(settings, partitions=partitions)
    for line in differing_topics(settings):
        logging.getLogger("acclimate.streams").warning("event=topic_differs %s", line)
    return asyncio.run(run_worker(settings, in_force, receiver))
