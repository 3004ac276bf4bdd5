"""Options that select data, the same on every command that reads recordings; without ``--data`` the simulated fleet."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

__all__ = ["data_options"]

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
