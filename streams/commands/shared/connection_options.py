"""Options of every command that talks to Kafka."""

from collections.abc import Callable
from typing import Any

import click

__all__ = ["connection_options", "json_option"]


def connection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--bootstrap`` and ``--fleet``; None means the setting."""
    fleet = click.option("--fleet", metavar="NAME", help="Prefix of the topics; default ACCLIMATE_FLEET or acclimate.")
    bootstrap = click.option(
        "--bootstrap", metavar="HOST:PORT[,..]", help="Address of Kafka; default ACCLIMATE_BOOTSTRAP or 127.0.0.1:9092."
    )
    return bootstrap(fleet(command))


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
