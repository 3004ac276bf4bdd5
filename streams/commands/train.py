"""``acclimate train``: train a source model and write its bundle."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streams.commands.connection_options import json_option
from streams.commands.data_options import data_options, selected_dataset

if TYPE_CHECKING:  # torch and rich take seconds to import: --help must not wait for them
    from adaptation.dataset import Dataset
    from adaptation.train import Progress
    from streams.source_model import SourceModel

__all__ = ["command"]


@click.command(
    epilog="Example: acclimate train --data chest_har.npz --label y4 --source device=1-5 --out out/bundle --seed 0"
)
@data_options
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("out/bundle"), show_default=True, help="Bundle folder."
)
@click.option("--force", is_flag=True, help="Replace the bundle in --out.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Equal seeds give equal bundles.")
@click.option("--epochs", type=click.IntRange(1, 1000), help="Passes over the source.  [default: 10 to 30, by size]")
@click.option(
    "--threads",
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Of torch; other numbers round otherwise.",
)
@click.option("--tau", type=float, help="LeanTTA: share of the source statistics that always stays, 0 to 1.")
@click.option("--lambda", "lam", type=float, help="LeanTTA: sharpness, above 0.")
@click.option(
    "--direction",
    type=click.Choice(["target_on_large", "source_on_large"]),
    help="LeanTTA: correct more (target_on_large, default) or less the larger the shift.",
)
@click.option(
    "--layers", metavar="all|first-half|first|N,N", help="LeanTTA: BatchNorm layers to adapt.  [default: first]"
)
@click.option("--threshold", type=float, help="Shift magnitude from which the adapted model answers.  [default: 0]")
@json_option
def command(
    out: Path,
    force: bool,
    seed: int,
    epochs: int | None,
    threads: int,
    tau: float | None,
    lam: float | None,
    direction: Any,
    layers: str | None,
    threshold: float | None,
    as_json: bool,
    **selection: Any,
) -> None:
    """Train a source model and write its bundle.

    Whole devices of the source are held out to test the model and to calibrate the shift magnitude (with fewer than
    five devices, the end of each recording). The target, if given, is only checked: nothing of it is used. Without
    --data, the source devices of a simulated fleet are trained on.
    """
    dataset = selected_dataset(seed, **selection)
    import torch

    from streams.source_model import LeanChoice, make_source_bundle

    # One by default: nets this small gain little from two, and lose a factor of three where a core is shared.
    torch.set_num_threads(threads)
    started = time.monotonic()
    with _progress_bar(quiet=as_json) as progress:
        made = make_source_bundle(
            dataset,
            out,
            seed,
            epochs=epochs,
            lean=LeanChoice(tau, lam, direction, layers, threshold),
            progress=progress,
            force=force,
        )
    summary = _summary(dataset, made, time.monotonic() - started)
    if as_json:
        click.echo(json.dumps(summary))
    else:
        _print_table(summary)


@contextmanager
def _progress_bar(quiet: bool) -> Iterator["Progress | None"]:
    """Show epochs on standard error, where a person is looking at it."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("training"), BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("first epoch", total=None)

        def show(epoch: int, of: int, loss: float, accuracy: float) -> None:
            text = f"epoch {epoch}/{of}  loss {loss:.3f}  held-out accuracy {100 * accuracy:.1f} %"
            bar.update(task, total=of, completed=epoch, description=text)

        yield show


def _summary(dataset: "Dataset", made: "SourceModel", seconds: float) -> dict[str, Any]:
    trained = made.trained
    return {
        "bundle": str(made.folder),
        "digest": made.digest,
        "data": dataset.name,
        "selection": dataset.selection,
        "windows": len(dataset.source),
        "windows_trained": int((~trained.held_out).sum()),
        "windows_held_out": int(trained.held_out.sum()),
        "windows_left_out": dataset.source.dropped,
        "held_out_by": trained.held_out_by,
        "held_out_groups": list(trained.held_out_groups),
        "accuracy": trained.accuracy,
        "recall": dict(zip(dataset.class_names, trained.recalls, strict=True)),
        "loss": trained.losses[-1],
        "seed": trained.seed,
        "epochs": len(trained.losses),
        "threads": trained.threads,
        "lean": {
            "tau": made.settings.tau,
            "lambda": made.settings.lam,
            "direction": made.settings.direction,
            "layers": list(made.settings.layers),
            "normalize_by_channels": made.settings.normalize_by_channels,
            "threshold": made.settings.threshold,
        },
        "seconds": round(seconds, 2),
    }


def _print_table(summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    held_out = ", ".join(summary["held_out_groups"]) or "the end of each class of each device"
    table = Table(title=f"source model of {summary['data']}", show_header=False, title_justify="left")
    table.add_row("windows trained on", f"{summary['windows_trained']}")
    table.add_row("windows held out", f"{summary['windows_held_out']} ({held_out})")
    if summary["windows_left_out"]:
        table.add_row("windows left out", f"{summary['windows_left_out']} (label -1)")
    table.add_row("held-out accuracy", f"{100 * summary['accuracy']:.1f} %")
    for name, recall in summary["recall"].items():
        table.add_row(f"  recall of {name}", "no such window" if recall is None else f"{100 * recall:.1f} %")
    table.add_row("time", f"{summary['seconds']:.1f} s, {summary['epochs']} epochs, seed {summary['seed']}")
    Console().print(table)
    # Outside of the table, so that neither is ever cut to a terminal's width.
    click.echo(f"bundle  {summary['bundle']}\ndigest  {summary['digest']}")
