"""``acclimate meta-train``: teach a generator for a source bundle and write its bundle."""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from acclimate.infra.allocator import keep_freed_memory
from acclimate.streams.commands.shared.connection_options import json_option
from acclimate.streams.commands.shared.data_options import data_options
from acclimate.streams.lab.study.selection import selected_dataset

if TYPE_CHECKING:  # torch and rich take seconds to import: --help must not wait for them
    from acclimate.adaptation.generators.meta_train import Check, Progress, Share
    from acclimate.streams.lab.making.generator_model import GeneratorModel

__all__ = ["command"]


@click.command(
    epilog="Examples: acclimate meta-train mgg --bundle out/chest --data chest_har.npz --label y4 --source device=1-5 "
    "--out out/chest-mgg;  torchrun --nproc-per-node 2 -m acclimate.streams.cli meta-train generalizeformer "
    "--bundle ..."
)
@click.argument("kind", type=click.Choice(["mgg", "generalizeformer"]))
@click.option(
    "--bundle",
    required=True,
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of the source bundle whose model is to be adapted.",
)
@data_options
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write the new bundle to.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed for all random draws.")
@click.option(
    "--updates",
    type=click.IntRange(1, 100_000),
    help="Largest number of updates.  [default: 32 for mgg, 400 for others]",
)
@click.option("--classifier", is_flag=True, help="Generate the classifier as well; for generalizeformer only.")
@click.option(
    "--device",
    default="cpu",
    show_default=True,
    type=click.Choice(["cpu", "cuda"]),
    help="Device on which torch trains.",
)
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 64), help="Threads of torch.")
@click.option("--force", is_flag=True, help="Begin anew where another training has left its checkpoint.")
@json_option
def command(
    kind: str,
    bundle: Path,
    out: Path,
    seed: int,
    updates: int | None,
    classifier: bool,
    device: str,
    threads: int,
    force: bool,
    as_json: bool,
    **selection: Any,
) -> None:
    """Meta-train a generator: mgg learns steps of BatchNorm's parameters, generalizeformer gives them in one pass.

    The generator learns from the labelled source alone, shifted by the simulator; whole source groups that it never
    learns from decide when to stop. An interrupted run goes on when you give the same command again: OUT.checkpoint
    holds its state until the bundle is written. With torchrun several processes share every update.
    """
    keep_freed_memory()
    dataset = selected_dataset(seed, **selection)
    import torch

    from acclimate.adaptation.errors import ConfigError
    from acclimate.adaptation.generators.generalizeformer import GeneralizeFormerSettings
    from acclimate.adaptation.generators.mgg import MggSettings
    from acclimate.registry.bundles.source_bundle import read_bundle
    from acclimate.streams.lab.making.generator_model import make_generator_bundle

    if classifier and kind != "generalizeformer":
        raise ConfigError("--classifier: mgg moves gamma and beta alone; use it with generalizeformer")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: torch finds no CUDA device here; leave it away to train on the CPU")
    torch.set_num_threads(threads)
    started = time.monotonic()
    with _processes(device) as share, _progress_bar(quiet=as_json or share.rank > 0) as progress:
        made = make_generator_bundle(
            dataset,
            read_bundle(bundle),
            MggSettings() if kind == "mgg" else GeneralizeFormerSettings(classifier=classifier),
            out,
            seed,
            time.monotonic,
            updates=updates,
            device=device,
            share=share,
            progress=progress,
            force=force,
        )
    if made is None:
        return
    summary = _summary(made, out, time.monotonic() - started)
    if as_json:
        click.echo(json.dumps(summary))
    else:
        _print_table(summary)


@contextmanager
def _processes(device: str) -> Iterator["Share"]:
    """Join the processes that torchrun started; without it there is this one."""
    from acclimate.adaptation.generators.meta_train import ALONE, Share

    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ALONE
        return
    import torch
    import torch.distributed as dist

    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        rank = dist.get_rank()
        if device == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))

        def mean(tensor: torch.Tensor) -> torch.Tensor:
            total = tensor.clone()
            dist.all_reduce(total)
            return total / count

        def largest(tensor: torch.Tensor) -> torch.Tensor:
            most = tensor.clone()
            dist.all_reduce(most, dist.ReduceOp.MAX)
            return most

        yield Share(rank, count, mean, largest)
    finally:
        dist.destroy_process_group()


@contextmanager
def _progress_bar(quiet: bool) -> Iterator["Progress | None"]:
    """Show updates and losses on standard error; a line per check where nobody looks."""
    if quiet:
        yield None
        return
    if not sys.stderr.isatty():

        def say(done: int, of: int, loss: float, check: "Check | None") -> None:
            if check is not None:
                click.echo(f"update {done} of {of}: {_figures(loss, check)}", err=True)

        yield say
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("meta-training")
        last: list[Check] = []

        def show(done: int, of: int, loss: float, check: "Check | None") -> None:
            last[:] = [check] if check is not None else last
            text = _figures(loss, last[0]) if last else f"loss {loss:.3f}"
            bar.update(task, total=of, completed=done, description=text)

        yield show


def _figures(loss: float, check: "Check") -> str:
    return (
        f"loss {loss:.3f}, held-out groups: loss {check.loss:.3f} (source {check.source_loss:.3f}), "
        f"accuracy {100 * check.accuracy:.1f} % ({100 * check.source_accuracy:.1f} %)"
    )


def _summary(made: "GeneratorModel", out: Path, seconds: float) -> dict[str, Any]:
    manifest = made.bundle.manifest
    return {
        "bundle": str(out),
        "digest": made.bundle.digest,
        "kind": manifest.kind,
        "source_bundle": manifest.compatibility.source_sha256,
        "weights_sha256": manifest.files["generator.safetensors"].sha256,
        "resumed_at": made.resumed_at,
        "checks": [asdict(check) for check in made.trained.checks],
        "valid_range": manifest.valid_range.model_dump(),
        "card": manifest.card,
        "seconds": round(seconds, 2),
    }


def _print_table(summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    card = summary["card"]
    table = Table(title=f"{summary['kind']} for {card['data']}", show_header=False, title_justify="left")
    table.add_row("updates", f"{card['updates']}, the best after {card['best_update']}")
    table.add_row("held-out groups, loss", f"{card['held_out_loss']:.3f} (source {card['held_out_source_loss']:.3f})")
    accuracy, source = 100 * card["held_out_accuracy"], 100 * card["held_out_source_accuracy"]
    table.add_row("held-out groups, accuracy", f"{accuracy:.1f} % (source {source:.1f} %)")
    accuracy, source = 100 * card["unshifted_accuracy"], 100 * card["unshifted_source_accuracy"]
    table.add_row("source without shift, accuracy", f"{accuracy:.1f} % (source {source:.1f} %)")
    table.add_row("steps at test", f"{card['step_share']:.1%} of those in meta-training")
    limits = summary["valid_range"]
    table.add_row("valid range", f"mean part {limits['mean_limit']:.1f}, variance part {limits['variance_limit']:.1f}")
    table.add_row("on ONNX Runtime", f"{card['milliseconds_per_batch']:.1f} ms a batch of {card['batch_windows']}")
    table.add_row("graphs", f"{(card['generator_graph_bytes'] + card['gradient_graph_bytes']) / 1024:.0f} KiB")
    table.add_row("time", f"{card['meta_training_seconds']:.1f} s, seed {card['seed']}")
    Console().print(table)
    if not card["helps"]:
        click.echo("It does not beat the source on held-out groups: do not ship it.")
    click.echo(f"bundle  {summary['bundle']}\ndigest  {summary['digest']}")
