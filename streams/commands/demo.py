"""``acclimate demo``: train, publish, answer, collect and report, end to end on this machine."""

import json
import secrets
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import click

from acclimate.infra.settings import load_settings
from acclimate.streams.commands.shared.connection_options import connection_options, json_option
from acclimate.streams.commands.shared.data_options import data_options
from acclimate.streams.lab.study.selection import selected_dataset

__all__ = ["command"]


@click.command(
    epilog="Example: acclimate demo --data chest_har.npz --label y4 --source device=1-5 --target device=6-12"
)
@data_options
@connection_options
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("out/demo"),
    show_default=True,
    help="Folder of everything that the demo makes.",
)
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of the simulation and of the training."
)
@click.option(
    "--mode",
    type=click.Choice(["observe", "always"]),
    help="observe: the source answers; always: LeanTTA answers shifted windows. Default ACCLIMATE_MODE or always: the "
    "demo shows what adaptation does on shifted sensors; a fleet starts with observe.",
)
@click.option(
    "--windows-per-record",
    default=16,
    show_default=True,
    type=click.IntRange(1, 256),
    help="Number of windows in one record.",
)
@click.option(
    "--epochs", type=click.IntRange(1, 1000), help="Passes over the source in training.  [default: by its size]"
)
@json_option
def command(
    bootstrap: str | None,
    fleet: str | None,
    out: Path,
    seed: int,
    mode: str | None,
    windows_per_record: int,
    epochs: int | None,
    as_json: bool,
    **selection: Any,
) -> int:
    """Run the whole story on this machine and write a report that opens in a browser.

    Without --data, the command simulates a fleet of rotating machines. Without --bootstrap or ACCLIMATE_BOOTSTRAP, it
    starts an Apache Kafka and stops it at the end; on a given one, it uses a fleet of a new name, and that fleet's
    topics stay. It exits with 1 if a window was lost or if an answer differs from a direct run.
    """
    settings = load_settings(bootstrap=bootstrap, fleet=fleet, mode=mode)
    local = "bootstrap" not in settings.model_fields_set
    own = {"fleet": f"demo-{secrets.token_hex(4)}", "mode": "always"}
    given = settings.model_fields_set
    settings = settings.model_copy(update={name: value for name, value in own.items() if name not in given})
    if settings.mode == "always":
        say("mode always: the demo shows what adaptation does on shifted sensors; a fleet starts with observe")
    signal.signal(signal.SIGTERM, _stop)  # so that everything that was started is stopped
    say("preparing the data")
    dataset = selected_dataset(seed, **selection)
    notes = _simulated(seed) if selection["data"] is None else {}

    from acclimate.streams.audit.report import verdicts
    from acclimate.streams.commands.shared.device_table import print_report, progress_bar
    from acclimate.streams.local.demo import DemoOptions, run_demo

    options = DemoOptions(out, seed, epochs, windows_per_record)
    with progress_bar(not as_json) as progress:
        result = run_demo(dataset, settings, options, local=local, notes=notes, say=say, progress=progress)
    if as_json:
        click.echo(json.dumps(result.report))
    else:
        click.echo()
        print_report(
            result.report,
            verdicts(result.report),
            {f"{dataset.group_key}-{group}": note for group, note in notes.items()},
        )
        click.echo(f"\nreport  {result.paths['html']}")
    return 0 if result.sound else 1


def say(text: str) -> None:
    click.echo(text, err=True)


def _simulated(seed: int) -> dict[str, str]:
    from acclimate.adaptation.data.simulate import device_shifts

    return {shift.device: "nothing" if shift.dominant == "none" else shift.dominant for shift in device_shifts(seed)}


def _stop(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
