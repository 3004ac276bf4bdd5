"""``acclimate train``: train a source model and write its bundle."""

import json
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
    from acclimate.adaptation.data.dataset import Dataset
    from acclimate.adaptation.model.robust import Choice
    from acclimate.adaptation.model.robust import Progress as ChoiceProgress
    from acclimate.adaptation.model.train import Progress
    from acclimate.streams.lab.making.source_model import SourceModel

__all__ = ["command"]


@click.command(epilog="Example: acclimate train --data chest_har.npz --label y4 --source device=1-5 --out out/chest")
@data_options
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("out/bundle"),
    show_default=True,
    help="Folder to write the bundle to.",
)
@click.option("--force", is_flag=True, help="Replace the bundle in --out.")
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="Seed for all random draws; equal seeds give equal bundles.",
)
@click.option("--epochs", type=click.IntRange(1, 1000), help="Passes over the source.  [default: 10 to 30, by size]")
@click.option(
    "--threads",
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Threads of torch; another number rounds differently.",
)
@click.option(
    "--augment",
    metavar="none|auto|KIND+KIND[:STRENGTH]",
    default="auto",
    show_default=True,
    help="Make the model robust by training on shifted windows: auto finds out on the source whether that helps; "
    "kinds are gain, offset, noise and rotation.",
)
@click.option("--tau", type=float, help="LeanTTA: share of the source statistics that is always kept, 0 to 1.")
@click.option(
    "--lambda",
    "lam",
    type=float,
    help="LeanTTA: sharpness, above 0; with target_on_large, a higher one corrects less at middling distances.",
)
@click.option(
    "--direction",
    type=click.Choice(["target_on_large", "source_on_large"]),
    help="LeanTTA: correct more where the shift is large (target_on_large, the default), or less.",
)
@click.option(
    "--layers", metavar="all|first-half|first|N,N", help="LeanTTA: BatchNorm layers to adapt.  [default: first]"
)
@click.option(
    "--sampling-rate-hz",
    type=float,
    help="Samples per second of the windows; workers then refuse windows of another rate.  [default: what the JSON "
    "file beside the recordings says]",
)
@click.option(
    "--step-samples",
    type=int,
    help="Samples from the start of one window to the start of the next.  [default: as above]",
)
@click.option("--threshold", type=float, help="Shift magnitude from which the adapted model answers.  [default: 0]")
@json_option
def command(
    out: Path,
    force: bool,
    seed: int,
    epochs: int | None,
    threads: int,
    augment: str,
    tau: float | None,
    lam: float | None,
    direction: Any,
    layers: str | None,
    threshold: float | None,
    sampling_rate_hz: float | None,
    step_samples: int | None,
    as_json: bool,
    **selection: Any,
) -> None:
    """Train a source model and write its bundle.

    The command first trains a model without some whole devices of the source (with fewer than five devices, without the
    end of each recording), tests it on them and calibrates the shift magnitude; then it trains the bundle's model in
    the same way on all of the source. It checks the target, if you give one, and uses nothing of it. Without --data it
    trains on the source devices of a simulated fleet.

    --augment auto, the default, leaves one device after another out and tries several recipes on it, up to 30 short
    trainings; --augment none skips them. It judges a source of one device by simulated shifts, which is weak evidence:
    give --group another key if its windows were recorded under several conditions.
    """
    keep_freed_memory()
    dataset = selected_dataset(seed, **selection)
    import torch

    from acclimate.streams.lab.making.source_model import LeanChoice, make_source_bundle

    # One by default: nets this small gain little from two, and lose a factor of three where a core is shared.
    torch.set_num_threads(threads)
    started = time.monotonic()
    with _progress_bar(quiet=as_json) as (progress, choice_progress):
        made = make_source_bundle(
            dataset,
            out,
            seed,
            epochs=epochs,
            lean=LeanChoice(tau, lam, direction, layers, threshold),
            augment=augment,
            sampling_rate_hz=sampling_rate_hz,
            step_samples=step_samples,
            progress=progress,
            choice_progress=choice_progress,
            force=force,
        )
    summary = _summary(dataset, made, time.monotonic() - started)
    if as_json:
        click.echo(json.dumps(summary))
    else:
        _print_table(summary)


@contextmanager
def _progress_bar(quiet: bool) -> Iterator[tuple["Progress | None", "ChoiceProgress | None"]]:
    """Show fits and epochs on standard error, where a person is looking at it."""
    if quiet or not sys.stderr.isatty():
        yield None, None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks = {}

        def advance(stage: str, done: int, of: int, text: str) -> None:
            if stage not in tasks:  # a task's clock starts with it
                tasks[stage] = bar.add_task(text)
            bar.update(tasks[stage], total=of, completed=done, description=f"{stage}  {text}")

        def show(epoch: int, of: int, loss: float, accuracy: float) -> None:
            text = f"epoch {epoch}/{of}  loss {loss:.3f}  held-out accuracy {100 * accuracy:.1f} %"
            advance("training", epoch, of, text)

        yield show, lambda done, of, what: advance("recipe", done, of, f"fit {min(done + 1, of)}/{of}  {what}")


def _summary(dataset: "Dataset", made: "SourceModel", seconds: float) -> dict[str, Any]:
    trained = made.trained
    return {
        "bundle": str(made.folder),
        "digest": made.digest,
        "data": dataset.name,
        "selection": dataset.selection,
        "windows": len(dataset.source),
        "windows_trained": len(dataset.source),
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
        "sampling_rate_hz": made.sampling_rate_hz,
        "step_samples": made.step_samples,
        "augment": made.recipe.asked,
        "augmentation": "none" if made.recipe.augmentation is None else str(made.recipe.augmentation),
        "augmentation_choice": None if made.recipe.choice is None else _choice_figures(made.recipe.choice),
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


def _choice_figures(choice: "Choice") -> dict[str, Any]:
    return {
        "judged_by": choice.judged_by,
        "weak": choice.weak,
        "fits": choice.fits,
        "table": [asdict(score) for score in choice.table],
    }


def _print_choice(choice: dict[str, Any], chosen: str) -> None:
    from rich.console import Console
    from rich.table import Table

    conditions = list(dict.fromkeys(score["condition"] for score in choice["table"]))
    accuracy = {(score["candidate"], score["condition"]): 100 * score["accuracy"] for score in choice["table"]}
    judged = "when left out of training" if choice["judged_by"] == "groups" else "under simulated shift"
    table = Table(title=f"accuracy in %, {judged}; taken: {chosen}", title_justify="left")
    table.add_column("recipe", overflow="fold")
    for condition in (*conditions, "mean"):
        table.add_column(condition, justify="right")
    for name in dict.fromkeys(score["candidate"] for score in choice["table"]):
        figures = [accuracy[name, condition] for condition in conditions]
        table.add_row(name, *(f"{figure:.1f}" for figure in (*figures, sum(figures) / len(figures))))
    Console().print(table)
    if choice["weak"]:
        why = "shifts are simulated" if choice["judged_by"] == "simulated" else "one condition alone could be left out"
        click.echo(f"The evidence for this recipe is weak: {why}.")


def _sampling_rate(rate_hz: float | None, step_samples: int | None) -> str:
    rate = "not named: windows of any rate are answered" if rate_hz is None else f"{rate_hz:g} Hz"
    return rate if step_samples is None else f"{rate}, a window every {step_samples} samples"


def _print_table(summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    if summary["augmentation_choice"] is not None:
        _print_choice(summary["augmentation_choice"], summary["augmentation"])
    held_out = ", ".join(summary["held_out_groups"]) or "the end of each class of each device"
    table = Table(title=f"source model of {summary['data']}", show_header=False, title_justify="left")
    table.add_row("windows trained on", f"{summary['windows_trained']}")
    table.add_row("held out of the tested model", f"{summary['windows_held_out']} ({held_out})")
    if summary["windows_left_out"]:
        table.add_row("windows left out", f"{summary['windows_left_out']} (label -1)")
    table.add_row("held-out accuracy", f"{100 * summary['accuracy']:.1f} %")
    for name, recall in summary["recall"].items():
        table.add_row(f"  recall of {name}", "no such window" if recall is None else f"{100 * recall:.1f} %")
    table.add_row("sampling rate", _sampling_rate(summary["sampling_rate_hz"], summary["step_samples"]))
    table.add_row("augmentation", summary["augmentation"])
    table.add_row("time", f"{summary['seconds']:.1f} s, {summary['epochs']} epochs, seed {summary['seed']}")
    Console().print(table)
    # Outside of the table, so that neither is ever cut to a terminal's width.
    click.echo(f"bundle  {summary['bundle']}\ndigest  {summary['digest']}")
