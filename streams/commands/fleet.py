"""``acclimate fleet``: play a recording, or a simulated fleet, as devices that publish to Kafka."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from acclimate.infra.settings import load_settings
from acclimate.streams.commands.shared.connection_options import connection_options, json_option
from acclimate.streams.commands.shared.data_options import data_options
from acclimate.streams.lab.study.selection import selected_dataset

__all__ = ["command"]


@click.command(
    epilog="Example: acclimate fleet --data chest_har.npz --label y4 --source device=1-5 --target device=6-12"
)
@data_options
@connection_options
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of the simulated fleet.")
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    help="Windows per second of the whole fleet; default: as fast as possible.",
)
@click.option(
    "--windows-per-record",
    default=16,
    show_default=True,
    type=click.IntRange(1, 256),
    help="Number of windows in one record.",
)
@click.option("--limit", type=click.IntRange(1), help="Number of windows after which to stop.")
@click.option(
    "--ledger",
    type=click.Path(path_type=Path),
    default=Path("out/ledger.jsonl"),
    show_default=True,
    help="File that gets a line for each published record, for `acclimate collect`; an existing one is continued.",
)
@click.option(
    "--outbox",
    type=click.Path(path_type=Path),
    help="File of the devices' buffer; default ACCLIMATE_OUTBOX or .acclimate/outbox-FLEET.sqlite.",
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
    bootstrap: str | None,
    fleet: str | None,
    seed: int,
    rate: float | None,
    windows_per_record: int,
    limit: int | None,
    ledger: Path,
    outbox: Path | None,
    partitions: int,
    as_json: bool,
    **selection: Any,
) -> None:
    """Play a recording as a fleet of devices.

    Each group of the target becomes a device; all are live at once, and each publishes its windows in their order.
    Nothing is lost when Kafka is away for a while or when this program is killed: the next start sends what is in the
    outbox. Each record names the sampling rate where the recording does. Without --data, the command plays the target
    devices of a simulated fleet.
    """
    settings = load_settings(bootstrap=bootstrap, fleet=fleet, outbox=outbox)
    dataset = selected_dataset(seed, **selection)

    from acclimate.adaptation.errors import ConfigError
    from acclimate.streams.local.player import play
    from acclimate.streams.wire.topics import create_topics

    if dataset.target is None:
        raise ConfigError("nothing to play: --target KEY=VALUES selects the rows to stream")
    create_topics(settings, partitions=partitions)
    windows = min(len(dataset.target), limit or len(dataset.target))
    with _progress(windows, quiet=as_json) as progress:
        report = play(
            dataset.target,
            settings,
            group_key=dataset.group_key,
            sampling_rate_hz=dataset.sampling_rate_hz,
            ledger=ledger,
            outbox_path=settings.outbox or Path(".acclimate") / f"outbox-{settings.fleet}.sqlite",
            rate_windows_per_s=rate,
            windows_per_record=windows_per_record,
            limit=limit,
            about={"data": dataset.name, "seed": seed, **dataset.selection},
            progress=progress,
        )
    if as_json:
        click.echo(json.dumps({**asdict(report), "ledger": str(ledger)}))
        return
    click.echo(
        f"{report.devices} devices published {report.windows} windows in {report.records} records and "
        f"{report.seconds:.1f} s ({report.windows_per_s:.0f} windows/s); Kafka refused {report.refused} records. "
        f"Ledger: {ledger}"
    )


@contextmanager
def _progress(windows: int, quiet: bool) -> Iterator[Callable[[int], None] | None]:
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("publishing windows", total=windows)
        yield lambda done: bar.update(task, completed=done)
