"""Options that select data, the same on every command that reads recordings; without ``--data`` the simulated fleet."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from adaptation.data.dataset import Dataset
from adaptation.data.load import load
from adaptation.data.selectors import parse_integers
from adaptation.data.simulate import simulate_fleet
from adaptation.errors import ConfigError

__all__ = ["data_options", "selected_dataset"]

_OPTIONS = (
    click.option(
        "--data",
        metavar="FILE.npz",
        type=click.Path(path_type=Path),
        help="Recordings with windows X, labels and keys; default: a simulated fleet of rotating machines.",
    ),
    click.option("--label", metavar="NAME", help="Array with the classes 0..K-1; -1 leaves a row out.  [default: y]"),
    click.option(
        "--source",
        metavar="KEY=VALUES",
        multiple=True,
        help="Rows to train on, such as device=0-6,10-14. Repeat the option, or write ';' between conditions, if "
        "several must hold.",
    ),
    click.option("--target", metavar="KEY=VALUES", multiple=True, help="Rows to stream, in the same form."),
    click.option(
        "--group",
        metavar="KEY",
        help="Key that tells the devices apart; default: the key of --target, else of --source.",
    ),
    click.option("--channels", metavar="N,N", help="Channels to use, in this order, from 0; default: all."),
    click.option("--target-channels", metavar="N,N", help="Channels of the target, if another sensor takes over."),
    click.option(
        "--transform",
        type=click.Choice(["none", "signedlog"]),
        help="Transformation of all values; signedlog: sign(x) log(1+|x|), for values over decades.  [default: none]",
    ),
    click.option("--order", metavar="KEY[,KEY]", help="Keys by which to sort each device; default: the stored order."),
)


def data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; a command takes them as ``**selection`` and hands them to `selected_dataset`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def selected_dataset(
    seed: int,
    *,
    data: Path | None = None,
    label: str | None = None,
    source: tuple[str, ...] = (),
    target: tuple[str, ...] = (),
    group: str | None = None,
    channels: str | None = None,
    target_channels: str | None = None,
    transform: str | None = None,
    order: str | None = None,
) -> Dataset:
    """Load what the options select, or simulate a fleet from ``seed``.

    Raises:
        ConfigError: Options contradict each other or do not fit the file.
        DataError: The file's content is wrong.
    """
    if data is None:
        given = {
            "--label": label,
            "--source": source,
            "--target": target,
            "--group": group,
            "--channels": channels,
            "--target-channels": target_channels,
            "--transform": transform,
            "--order": order,
        }
        stray = [name for name, value in given.items() if value]
        if stray:
            raise ConfigError(f"{stray[0]} selects from recordings: add --data FILE.npz, or leave it away to simulate")
        return simulate_fleet(seed)
    if not source:
        raise ConfigError("--data needs --source, the rows to train on: --source device=1-5")
    return load(
        data,
        label=label or "y",
        source=";".join(source),
        target=";".join(target) if target else None,
        group=group,
        channels=parse_integers(channels) if channels is not None else None,
        target_channels=parse_integers(target_channels) if target_channels is not None else None,
        transform=transform or "none",
        order=tuple(name.strip() for name in order.split(",")) if order else (),
    )
