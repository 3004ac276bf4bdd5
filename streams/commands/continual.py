"""``acclimate continual``: learn groups in turn from delayed labels, and measure what is forgotten."""

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
    from acclimate.streams.lab.continual.results import Results

__all__ = ["command"]

_METHODS = "naive,l2sp,ftp,tpgm,spd,ewc,er,ftp+er,ftp+er+adapters+lwf"
_BRIEF = ("source", "method", "rate", "accuracy", "closed", "forgetting", "source's own", "while learning")
_EXIT_BUG, _EXIT_AGAIN = 70, 75  # as the command line documents them; 3 is for what data or artifacts did


@click.command(
    epilog="Example: acclimate continual --data chest_har.npz --label y4 --source device=1-5 --target device=6-12 "
    "--label-fraction 0.05,0.2 --label-delay 200 --methods naive,ftp+er+adapters+lwf --jobs 2 --out out/continual"
)
@data_options
@click.option(
    "--methods",
    default=_METHODS,
    show_default=True,
    help="Ways of learning, separated by commas, each made of parts joined by +: naive, ftp, ftp-warm, ftp-relative, "
    "spd, tpgm, l2sp, ewc, lwf, er, iwms, agem, adapters.",
)
@click.option("--learning-rate", default="0.001", show_default=True, help="Learning rates, separated by commas.")
@click.option(
    "--label-fraction",
    default="0.05",
    show_default=True,
    help="Shares of windows that get a label, separated by commas.",
)
@click.option(
    "--wrong-labels",
    default="0",
    show_default=True,
    help="Shares of labels that name another class, separated by commas.",
)
@click.option(
    "--label-delay",
    default=200,
    show_default=True,
    type=click.IntRange(0),
    help="Number of windows of a group between a window and its label; outstanding labels come at the group's end.",
)
@click.option(
    "--seeds", default=3, show_default=True, type=click.IntRange(1, 1000), help="Number of seeds, counted from 0."
)
@click.option(
    "--augment",
    default="none",
    show_default=True,
    help="How to train the source models: none, auto, or recipes such as gain+noise:0.5.",
)
@click.option(
    "--memory",
    default=1024,
    show_default=True,
    type=click.IntRange(1),
    help="Number of windows of groups to remember; windows of the source do not count.",
)
@click.option("--steps", default=20, show_default=True, type=click.IntRange(1), help="Gradient steps of each update.")
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
    default=Path("out/continual"),
    show_default=True,
    help="Folder of the results.",
)
@click.option("--force", is_flag=True, help="Delete results of another configuration in --out.")
@json_option
def command(
    methods: str,
    learning_rate: str,
    label_fraction: str,
    wrong_labels: str,
    label_delay: int,
    seeds: int,
    augment: str,
    memory: int,
    steps: int,
    jobs: int,
    out: Path,
    force: bool,
    as_json: bool,
    **selection: Any,
) -> None:
    """Learn the groups of the target one after the other from delayed labels, in several ways.

    The command trains one source model per seed and kind of source, on stretches of the source; learns the groups of
    the target in turn, from the labels of a share of their windows; and judges each model on stretches of all groups
    that nothing learned from. An interrupted comparison goes on when you give the same command again, and you may reuse
    --out for more methods, rates, shares of labels, seeds and kinds of source. It writes results.json, summary.md and
    figures/.

    Exit codes besides the usual: 3 or 70 when single runs failed, 75 when a worker process died; the same command goes
    on in both cases.
    """
    from acclimate.streams.lab.continual.options import ContinualOptions, parse_methods, parse_shares
    from acclimate.streams.lab.study.recipes import parse_sources

    options = ContinualOptions(
        selection=selection,
        methods=parse_methods(methods),
        learning_rates=parse_shares("--learning-rate", learning_rate, 0.0, 1.0),
        label_fractions=parse_shares("--label-fraction", label_fraction, 0.0, 1.0),
        wrong=parse_shares("--wrong-labels", wrong_labels, -1e-12, 0.99),
        delay=label_delay,
        seeds=seeds,
        augment=parse_sources(augment),
        memory=memory,
        steps=steps,
        jobs=jobs,
    )

    from acclimate.streams.lab.continual.figures import draw_figures
    from acclimate.streams.lab.continual.page import write_page, write_results
    from acclimate.streams.lab.continual.results import collect, figures
    from acclimate.streams.lab.continual.study import run_study
    from acclimate.streams.lab.study.processes import WorkerDied

    try:
        with stage_progress() as progress:
            failed = run_study(options, out, force, progress)
    except WorkerDied as error:
        click.echo(f"error: {error}", err=True)
        click.get_current_context().exit(_EXIT_AGAIN)
    texts = [str(item) for item in failed]
    results = collect(options, out, texts)
    files = [out / "results.json", out / "summary.md"]
    write_results(files[0], options, results)
    write_page(files[1], options, results, shlex.join(["acclimate", *sys.argv[1:]]))
    files += draw_figures(out, results)
    if as_json:
        summary = [figures(line) for line in results.lines]
        click.echo(json.dumps({"files": [str(path) for path in files], "summary": summary, "failed": texts}))
    else:
        _print_table(results, files)
    for text in texts:
        click.echo(f"failed: {text}", err=True)
    if texts:
        click.echo(f"error: {len(texts)} runs failed; the same command tries them again", err=True)
        click.get_current_context().exit(3 if all(item.expected for item in failed) else _EXIT_BUG)


def _print_table(results: "Results", files: list[Path]) -> None:
    from rich.console import Console
    from rich.table import Table

    from acclimate.streams.lab.continual.page import HEAD, cells
    from acclimate.streams.lab.study.tables import grouped

    console = Console()
    for (fraction, wrong), lines in grouped(results.lines, lambda line: (line.label_fraction, line.wrong)):
        told = f", {100 * wrong:g} % of them wrong" if wrong else ""
        table = Table(title=f"{100 * fraction:g} % of the labels{told}", title_justify="left")
        for place, name in enumerate(_BRIEF):
            table.add_column(name, justify="left" if place < 2 else "right", overflow="fold", no_wrap=name == "method")
        for line in lines:
            texts = dict(zip(HEAD, cells(line), strict=True))
            table.add_row(*(texts[name] for name in _BRIEF))
        console.print(table)
    for path in files:
        click.echo(str(path))
