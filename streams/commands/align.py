"""``acclimate align``: align a second encoder with a source bundle and write a bundle of kind ``cta``."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from acclimate.infra.allocator import keep_freed_memory
from acclimate.streams.commands.shared.connection_options import json_option
from acclimate.streams.commands.shared.data_options import data_options
from acclimate.streams.lab.study.selection import selected_dataset

if TYPE_CHECKING:  # torch and rich take seconds to import: --help must not wait for them
    from acclimate.adaptation.alignment.align import Progress

__all__ = ["command"]


@click.command(
    epilog="Example: acclimate align --bundle out/chest --data chest_har.npz --label y4 --source device=1-5 "
    "--out out/chest-cta"
)
@click.option(
    "--bundle",
    required=True,
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of the source bundle; its classifier stays as it is.",
)
@data_options
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write the new bundle to.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed for all random draws.")
@click.option(
    "--epochs", type=click.IntRange(1, 1000), help="Passes over the source in each stage.  [default: 10 to 30, by size]"
)
@click.option(
    "--task",
    default="contrastive",
    show_default=True,
    type=click.Choice(["contrastive", "masked"]),
    help="Task that the encoder learns without labels.",
)
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 64), help="Threads of torch.")
@click.option("--force", is_flag=True, help="Begin anew where another training has left its checkpoint.")
@json_option
def command(
    bundle: Path,
    out: Path,
    seed: int,
    epochs: int | None,
    task: str,
    threads: int,
    force: bool,
    as_json: bool,
    **selection: Any,
) -> None:
    """Align a second, self-supervised encoder with a classifier, so that it may go on learning without labels.

    The encoder learns in three stages, on the labelled source alone: first a task of its own, then to give what the
    classifier's encoder gives; then a head is fitted to it. An interrupted run goes on when you give the same command
    again: OUT.checkpoint holds its state until the bundle is written.

    The JSON file beside the data names the changes of a window that the task must not use: "unsafe_augmentations":
    ["gain"], chosen from jitter, gain, shift, mask, dropout and corruption.
    """
    keep_freed_memory()
    dataset = selected_dataset(seed, **selection)
    import torch

    from acclimate.adaptation.alignment.aligned import AlignmentSettings
    from acclimate.registry.bundles.source_bundle import read_bundle
    from acclimate.streams.lab.making.aligned_model import make_aligned_bundle

    torch.set_num_threads(threads)
    settings = AlignmentSettings(task=task)  # type: ignore[arg-type]  # click has checked it
    with _progress_bar(quiet=as_json) as progress:
        made = make_aligned_bundle(
            dataset,
            read_bundle(bundle),
            settings,
            out,
            seed,
            time.monotonic,
            epochs=epochs,
            progress=progress,
            force=force,
        )
    card = made.manifest.card
    if as_json:
        summary = {
            "bundle": str(out),
            "digest": made.digest,
            "kind": made.manifest.kind,
            "source_bundle": made.manifest.compatibility.source_sha256,
            "card": card,
        }
        click.echo(json.dumps(summary))
        return
    click.echo(
        f"cosine with the classifier's encoder  {card['matched_cosine']:.2f}, of other windows "
        f"{card['mismatched_cosine']:.2f}"
    )
    click.echo(f"loss of its own task on the source    {card['ssl_mean']:.2f} ± {card['ssl_std']:.2f}")
    click.echo(f"time    {card['seconds']:.1f} s, seed {seed}\nbundle  {out}\ndigest  {made.digest}")


@contextmanager
def _progress_bar(quiet: bool) -> Iterator["Progress | None"]:
    """Show stages and losses on standard error; a line per epoch where nobody looks."""
    if quiet:
        yield None
        return
    if not sys.stderr.isatty():

        def say(stage: str, epoch: int, of: int, loss: float) -> None:
            click.echo(f"{stage}, epoch {epoch} of {of}: loss {loss:.3f}", err=True)

        yield say
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def show(stage: str, epoch: int, of: int, loss: float) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage)
            bar.update(tasks[stage], total=of, completed=epoch, description=f"{stage}, loss {loss:.3f}")

        yield show
