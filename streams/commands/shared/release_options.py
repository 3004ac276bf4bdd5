"""Options and shapes that the commands about releases share."""

import getpass
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from acclimate.adaptation.errors import ConfigError
from acclimate.infra.settings import Settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from acclimate.registry.bundles.member import Kind
    from acclimate.registry.trust.trust import Trust

__all__ = [
    "KIND_NAMES",
    "approver_key",
    "asking_options",
    "fleet_trust",
    "kind_argument",
    "shown_time",
    "this_user",
    "to_kind",
]

KIND_NAMES = ("source", "mgg", "generalizeformer", "cta")

kind_argument = click.argument("kind", type=click.Choice(KIND_NAMES))


def asking_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--reason``, ``--key``, ``--wait`` and ``--timeout``."""
    for option in (
        click.option(
            "--timeout", default=3600.0, show_default=True, metavar="SECONDS", help="Longest time that --wait waits."
        ),
        click.option("--wait", is_flag=True, help="Watch the roll-out to its end."),
        click.option("--key", metavar="FILE", help="File of an approver's key; default ACCLIMATE_APPROVER_KEY."),
        click.option("--reason", default="", metavar="TEXT", help="Reason that the history shows."),
    ):
        command = option(command)
    return command


def to_kind(name: str) -> "Kind":
    """Return the kind with this name."""
    from acclimate.registry.bundles.member import KINDS

    return next(kind for kind in KINDS if kind == name)


def fleet_trust(settings: Settings) -> "Trust":
    """Return the trust file of the fleet: the keys that it believes.

    Raises:
        ConfigError: ACCLIMATE_TRUST is not set, or names no such file.
    """
    from acclimate.registry.trust.key_folder import read_trust_file

    if settings.trust is None:
        raise ConfigError("set ACCLIMATE_TRUST to the fleet's trust.json; `acclimate keys init` makes it")
    trust = read_trust_file(settings.trust)[1]
    if trust.fleet != settings.fleet:
        raise ConfigError(f"{settings.trust}: is of fleet {trust.fleet}; set ACCLIMATE_FLEET or --fleet to it")
    return trust


def approver_key(settings: Settings) -> "Ed25519PrivateKey | None":
    """Return the approver's key that the settings name; None for none."""
    from acclimate.registry.trust.keys import read_key

    if settings.approver_key is None:
        return None
    return read_key(settings.approver_key, settings.passphrase)


def this_user() -> str:
    """Return the login name, for the history; nothing proves it."""
    return getpass.getuser()[:100]


def shown_time(at_ms: int) -> str:
    """Return a time as people write it, in UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
