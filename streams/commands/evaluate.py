"""``acclimate evaluate``: compare methods on recorded, reordered and disturbed streams."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from acclimate.streams.commands.shared.connection_options import json_option
from acclimate.streams.commands.shared.data_options import data_options
from acclimate.streams.commands.shared.stage_progress import stage_progress

if TYPE_CHECKING:  # torch and rich take seconds to import: --help must not wait for them
    from acclimate.streams.lab.evaluate.results import Results

__all__ = ["command"]

_EXIT_BUG, _EXIT_AGAIN = 70, 75  # as the command line documents them; 3 is for what data or artifacts did


@click.command(
    epilog="Example: acclimate evaluate --data chest_har.npz --label y4 --source device=1-5 --target device=6-12 "
    "--methods source,cum-bn,t3a,policy --batch-sizes 1,64 --jobs 2 --out out/chest"
)
@data_options
@click.option(
    "--methods",
    default="all",
    show_default=True,
    help="Methods to compare: names separated by commas, all, ablations (of generators), or cta-ablations.",
)
@click.option(
    "--streams",
    default="ordered,shuffled",
    show_default=True,
    help="Orders of the windows: names separated by commas, or all.",
)
@click.option(
    "--batch-sizes",
    default="1,64",
    show_default=True,
    help="Numbers of windows that a method gets at once, separated by commas.",
)
@click.option(
    "--seeds", default=3, show_default=True, type=click.IntRange(1, 1000), help="Number of seeds, counted from 0."
)
@click.option(
    "--augment",
    default="none,auto",
    show_default=True,
    help="How to train the source models: none, auto, or recipes such as gain+noise:0.5, separated by commas.",
)
@click.option(
    "--severity", type=float, help="Severity of all corrupted streams, above 0 to 5.  [default: each its own]"
)
@click.option(
    "--stride",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Use every N-th window only, for a quick look.",
)
@click.option(
    "--epochs", type=click.IntRange(1, 1000), help="Passes over the source in training.  [default: 10 to 30, by size]"
)
@click.option(
    "--jobs",
    default=1,
    show_default=True,
    type=click.IntRange(0, 256),
    help="Number of worker processes; 0 works in this one.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("out/evaluation"),
    show_default=True,
    help="Folder of the results.",
)
@click.option("--force", is_flag=True, help="Delete results of another configuration in --out.")
@click.option("--again", metavar="NAME,NAME", help="Run these of the methods asked for again.")
@click.option("--report-only", is_flag=True, help="Run nothing, and write the report of what is finished.")
@json_option
def command(
    methods: str,
    streams: str,
    batch_sizes: str,
    seeds: int,
    augment: str,
    severity: float | None,
    stride: int,
    epochs: int | None,
    jobs: int,
    out: Path,
    force: bool,
    again: str | None,
    report_only: bool,
    as_json: bool,
    **selection: Any,
) -> None:
    """Compare methods on the target, device by device, in time order and otherwise.

    The command trains one source model per seed and kind of source, and runs every method over the same streams. An
    interrupted run goes on when you give the same command again, and you may reuse --out for more methods, streams,
    batch sizes, seeds and kinds of source; the report shows what this command asks for. It writes results.json,
    summary.md and figures/. It uses labels of the target for scores alone (and for the order of the stream skewed).

    Exit codes besides the usual: 3 or 70 when single methods failed (the report shows the others), 75 when a worker
    process died; the same command goes on in both cases.
    """
    from acclimate.adaptation.errors import ConfigError
    from acclimate.adaptation.evaluation.streams import STREAMS
    from acclimate.adaptation.methods.catalogue import ABLATIONS, CTA_ABLATIONS, METHODS
    from acclimate.streams.lab.evaluate.options import EvaluationOptions, parse_choice, parse_numbers
    from acclimate.streams.lab.study.recipes import parse_sources

    usual = [name for name in METHODS if name not in (*ABLATIONS, *CTA_ABLATIONS)]
    several = {"all": usual, "ablations": ABLATIONS, "cta-ablations": CTA_ABLATIONS}
    names = parse_choice("--methods", methods, tuple(METHODS), several)
    if severity is not None and not 0.0 < severity <= 5.0:
        raise ConfigError(f"--severity: expected above 0 to 5, got {severity:g}")
    options = EvaluationOptions(
        selection=selection,
        methods=tuple(dict.fromkeys(("source", *names))),
        streams=parse_choice("--streams", streams, STREAMS),
        batch_sizes=parse_numbers("--batch-sizes", batch_sizes),
        seeds=seeds,
        augment=parse_sources(augment),
        severity=severity,
        stride=stride,
        epochs=epochs,
        jobs=jobs,
    )
    repeated = parse_choice("--again", again, options.methods) if again is not None else ()

    from acclimate.streams.lab.evaluate.evaluation import run_evaluation
    from acclimate.streams.lab.evaluate.report import write_report
    from acclimate.streams.lab.study.processes import FailedJob, WorkerDied

    failed: list[FailedJob] = []
    if not report_only:
        try:
            with stage_progress() as progress:
                failed = run_evaluation(options, out, force=force, again=repeated, progress=progress)
        except WorkerDied as error:
            click.echo(f"error: {error}", err=True)
            click.get_current_context().exit(_EXIT_AGAIN)
    results, files = write_report(options, out, failed, _command_line())
    if as_json:
        click.echo(json.dumps(_summary(results, files)))
    else:
        _print_table(results, files)
    for item in failed:
        click.echo(f"failed: {item}", err=True)
    if failed:
        click.echo(
            f"error: {len(failed)} tasks failed (results.json has the traces); the same command tries them again",
            err=True,
        )
        click.get_current_context().exit(3 if all(item.expected for item in failed) else _EXIT_BUG)


def _command_line() -> str:
    return shlex.join(["acclimate", *sys.argv[1:]])


def _summary(results: "Results", files: dict[str, Path]) -> dict[str, Any]:
    from acclimate.streams.lab.evaluate.lines import summarise_lines

    return {
        "files": {kind: str(path) for kind, path in files.items()},
        "about": dict(results.about),
        "rows": len(results.rows),
        "cannot": dict(results.cannot),
        "missing": results.missing,
        "failed": len(results.failed),
        "lines": [line.figures() for line in summarise_lines(results)],
    }


def _print_table(results: "Results", files: dict[str, Path]) -> None:
    from rich.console import Console
    from rich.table import Table

    from acclimate.streams.lab.evaluate.lines import summarise_lines
    from acclimate.streams.lab.evaluate.summary import BRIEF, HEAD, cells

    console = Console()
    lines = summarise_lines(results)
    for stream, batch_size in dict.fromkeys((line.stream, line.batch_size) for line in lines):
        stride = results.about["stride"]
        title = f"{stream}, batch {batch_size}" + (f", every {stride}th window only" if stride > 1 else "")
        table = Table(title=title, title_justify="left")
        for place, name in enumerate(BRIEF):
            table.add_column(name, justify="left" if place < 2 else "right")
        for line in lines:
            if (line.stream, line.batch_size) == (stream, batch_size):
                texts = dict(zip(HEAD, cells(line), strict=True))
                table.add_row(*(texts[name] for name in BRIEF))
        console.print(table)
    for method, reason in results.cannot.items():
        click.echo(f"{method} cannot adapt this network: {reason}")
    for path in files.values():
        click.echo(str(path))
    if results.missing:
        click.echo(f"unfinished: {results.missing} of the tasks asked for are missing")
