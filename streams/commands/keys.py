"""``acclimate keys``: make, rotate and revoke the keys that a fleet believes."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from acclimate.adaptation.errors import ConfigError
from acclimate.infra.settings import load_settings
from acclimate.streams.commands.shared.connection_options import json_option

if TYPE_CHECKING:
    from acclimate.registry.trust.trust import Role

__all__ = ["command"]

ROLE_NAMES = ("release", "gate", "approver", "agent")
_DAY_MS = 24 * 3600 * 1000

folder_option = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("keys"),
    show_default=True,
    help="Folder of the keys and of trust.json.",
)
root_option = click.option(
    "--root",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of the root key, if you keep it elsewhere.  [default: root.pem in the folder]",
)


@click.group(epilog="Example: acclimate keys init --approver ann --approver bob --approvals 1")
def command() -> None:
    """Make, rotate and revoke the keys of a fleet.

    The controller's key signs every release, the gates' key every bundle and verdict, an approver's key every approval.
    Receivers believe the keys in trust.json, which the root key signs. Give each file to its owner, and keep the root
    key off-line: only `add`, `rotate` and `revoke` need it. ACCLIMATE_KEY_PASSPHRASE encrypts the files.
    """


@command.command(epilog="Example: acclimate keys init --fleet plant --approver ann --approvals 1")
@folder_option
@click.option("--fleet", help="Fleet whose keys these are; default ACCLIMATE_FLEET or acclimate.")
@click.option(
    "--approver",
    "approvers",
    metavar="NAME",
    multiple=True,
    help="Name of somebody who may approve releases; repeat the option for more.",
)
@click.option(
    "--approvals",
    type=click.IntRange(0, 2),
    default=0,
    show_default=True,
    help="Number of approvers who must sign for each bundle; with 0 the controller takes a moved alias as approval.",
)
@json_option
def init(folder: Path, fleet: str | None, approvers: tuple[str, ...], approvals: int, as_json: bool) -> None:
    """Make all keys of a new fleet."""
    from acclimate.registry.trust.key_folder import init_keys

    settings = load_settings(fleet=fleet)
    for name in approvers:
        _check_owner("--approver", name)
    init_keys(folder, settings.fleet, approvers, approvals, _passphrase(), _now_ms())
    _show(folder, as_json)
    if not as_json:
        click.echo(
            f"\nTake {folder / 'root.pem'} off-line, give each approver their file, and every receiver trust.json."
        )


@command.command(epilog="Example: acclimate keys add approver --owner carl --root /mnt/stick/root.pem")
@click.argument("role", type=click.Choice(ROLE_NAMES))
@folder_option
@root_option
@click.option("--owner", required=True, help="Name of the person or service that gets the key.")
@json_option
def add(role: str, folder: Path, root: Path | None, owner: str, as_json: bool) -> None:
    """Make a key for another owner, such as a new approver."""
    from acclimate.registry.trust.key_folder import add_key

    _check_owner("--owner", owner)
    path = add_key(folder, root or folder / "root.pem", _role(role), owner, _passphrase(), _now_ms())
    _show(folder, as_json)
    if not as_json:
        click.echo(f"\nThe new key is {path}.")


@command.command(epilog="Example: acclimate keys rotate release --root /mnt/stick/root.pem --window 14")
@click.argument("role", type=click.Choice(ROLE_NAMES))
@folder_option
@root_option
@click.option("--owner", help="Owner of the key, where the role has several.")
@click.option(
    "--window",
    type=click.FloatRange(0, 3650),
    default=14.0,
    show_default=True,
    metavar="DAYS",
    help="Days for which the fleet believes the old key as well.",
)
@json_option
def rotate(role: str, folder: Path, root: Path | None, owner: str | None, window: float, as_json: bool) -> None:
    """Replace a key; for some days receivers believe both.

    The controller spreads the new trust.json with its next release. Start it with the new key within the window.
    """
    from acclimate.registry.trust.key_folder import rotate_key

    window_ms = round(window * _DAY_MS)
    path = rotate_key(folder, root or folder / "root.pem", _role(role), owner, window_ms, _passphrase(), _now_ms())
    _show(folder, as_json)
    if not as_json:
        click.echo(f"\nThe new key is {path}.")


@command.command(epilog="Example: acclimate keys revoke 3fa1c2 --root /mnt/stick/root.pem")
@click.argument("key_id")
@folder_option
@root_option
@json_option
def revoke(key_id: str, folder: Path, root: Path | None, as_json: bool) -> None:
    """Take a key out for ever, at once; KEY_ID is its id or the beginning of it.

    Receivers accept nothing more that it has signed; what runs goes on. If it was a gate key, register its bundles
    again before you release them again.
    """
    from acclimate.registry.trust.key_folder import revoke_key

    gone = revoke_key(folder, root or folder / "root.pem", key_id, _passphrase())
    _show(folder, as_json)
    if not as_json:
        click.echo(f"\nRevoked: {gone.key_id[:12]}, {gone.role} of {gone.owner}.")


@command.command("list")
@folder_option
@json_option
def show(folder: Path, as_json: bool) -> None:
    """Show the keys that the fleet believes."""
    _show(folder, as_json)


def _show(folder: Path, as_json: bool) -> None:
    from acclimate.registry.trust.key_folder import TRUST_FILE, read_trust_file

    _, trust = read_trust_file(folder / TRUST_FILE)
    keys = [
        {"key_id": k.key_id, "role": k.role, "owner": k.owner, "from_ms": k.from_ms, "until_ms": k.until_ms}
        for k in trust.keys
    ]
    if as_json:
        about = {"fleet": trust.fleet, "version": trust.version, "approvals": trust.approvals}
        click.echo(json.dumps({**about, "keys": keys, "revoked": list(trust.revoked)}))
        return
    click.echo(f"fleet {trust.fleet}, version {trust.version}, {trust.approvals} approvals needed")
    for key in trust.keys:
        until = "" if key.until_ms is None else f", until {_day(key.until_ms)}"
        click.echo(f"  {key.key_id[:12]}  {key.role:9}{key.owner}, from {_day(key.from_ms)}{until}")
    for gone in trust.revoked:
        click.echo(f"  {gone[:12]}  revoked")


def _role(name: str) -> "Role":
    from acclimate.registry.trust.trust import ROLES

    return next(role for role in ROLES if role == name)


def _check_owner(option: str, name: str) -> None:
    if not name.replace("-", "").replace("_", "").isalnum() or len(name) > 64:
        raise ConfigError(f"{option}: expected letters, digits, - and _, got {name!r}; it names a file")


def _day(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _passphrase() -> str | None:
    return load_settings().passphrase
