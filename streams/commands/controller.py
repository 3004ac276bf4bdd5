"""``acclimate controller``: release what was asked for, judged and approved."""

import json
import logging
import secrets
import signal
import threading

import click

from acclimate.infra.settings import load_settings
from acclimate.streams.commands.shared.connection_options import connection_options, json_option

__all__ = ["command"]


@click.command(
    epilog="Example: ACCLIMATE_TRUST=keys/trust.json ACCLIMATE_RELEASE_KEY=keys/release.pem acclimate controller"
)
@connection_options
@click.option(
    "--poll",
    default=2.0,
    show_default=True,
    type=click.FloatRange(0.1, 3600),
    help="Seconds between two looks at the history and at MLflow.",
)
@click.option(
    "--partitions",
    default=6,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Number of partitions of topics that do not exist yet.",
)
@json_option
def command(bootstrap: str | None, fleet: str | None, poll: float, partitions: int, as_json: bool) -> None:
    """Release what was asked for, judged and approved, in waves, until SIGTERM.

    The controller looks at the history in Kafka and at the alias `champion` in MLflow (ACCLIMATE_MLFLOW), and signs
    releases with ACCLIMATE_RELEASE_KEY. Where trust.json asks for approvals, only `acclimate promote` with an
    approver's key is a request; else a moved alias is one. The table [rollout] of ACCLIMATE_POLICY has the rules of the
    waves. You may kill it at any time: the next one goes on. A second one of the same fleet ends the first.
    """
    settings = load_settings(bootstrap=bootstrap, fleet=fleet)
    click.echo(json.dumps({"settings": settings.masked()}), err=not as_json)

    from acclimate.registry.gates.rules import read_policy
    from acclimate.registry.trust.keys import read_key
    from acclimate.streams.releases.controller import Controller
    from acclimate.streams.wire.topics import create_topics, differing_topics

    if settings.release_key is None:
        raise click.UsageError(
            "set ACCLIMATE_RELEASE_KEY to the key that signs releases; `acclimate keys init` makes it"
        )
    key = read_key(settings.release_key, settings.passphrase)
    policy = read_policy(settings.policy)
    log = logging.getLogger("acclimate.streams")
    log.setLevel(logging.INFO)
    create_topics(settings, partitions=partitions)
    for line in differing_topics(settings):
        log.warning("event=topic_differs %s", line)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    controller = Controller(settings, policy.rollout, key, lambda: secrets.token_hex(8))
    log.info("event=controller_ready fleet=%s", settings.fleet)
    try:
        controller.follow(stop, poll)
    finally:
        controller.close()
    log.info("event=stopped")
