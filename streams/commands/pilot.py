"""``acclimate pilot``: find out on your own recordings what adaptation would do, and how to start."""

import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from acclimate.streams.commands.shared.connection_options import json_option
from acclimate.streams.commands.shared.data_options import data_options

if TYPE_CHECKING:  # torch and rich take seconds to import: --help must not wait for them
    from acclimate.streams.lab.pilot.conclusions import Report
    from acclimate.streams.lab.pilot.gains import Gain
    from acclimate.streams.lab.pilot.study import Progress

__all__ = ["command"]


@click.command(
    epilog="Example: acclimate pilot --data chest_har.npz --label y4 --source device=1-5 --target device=6-12 "
    "--error-cost 0.05 --label-cost 2 --cpu-hour-cost 0.04 --out out/pilot"
)
@data_options
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("out/pilot"),
    show_default=True,
    help="Folder to write the pilot to.",
)
@click.option("--force", is_flag=True, help="Replace the pilot in --out.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed for all random draws.")
@click.option(
    "--epochs", type=click.IntRange(1, 1000), help="Passes over the source in training.  [default: 10 to 30, by size]"
)
@click.option(
    "--augment",
    metavar="none|auto|KIND+KIND[:STRENGTH]",
    default="auto",
    show_default=True,
    help="How to train the source robustly: auto finds out on the source whether that helps.",
)
@click.option(
    "--no-target-labels",
    is_flag=True,
    help="Do not look at labels of the target; what to expect then comes from the source's own devices. Rows without a "
    "label must hold any class of the source: -1 leaves them out.",
)
@click.option("--label-cost", type=float, help="Cost of a label for one window.  [default: 1, a placeholder]")
@click.option("--error-cost", type=float, help="Cost of one wrong answer.  [default: 0.01, a placeholder]")
@click.option("--cpu-hour-cost", type=float, help="Cost of one core for one hour.  [default: 0.05, a placeholder]")
@click.option(
    "--windows-per-day",
    type=float,
    help="Windows of one device in a day.  [default: from the sampling rate, else one a minute]",
)
@click.option("--devices", type=int, help="Number of devices in the fleet.  [default: as many as in the target]")
@click.option(
    "--jobs",
    default=2,
    show_default=True,
    type=click.IntRange(0, 256),
    help="Number of worker processes; 0 works in this one.",
)
@json_option
def command(
    out: Path,
    force: bool,
    seed: int,
    epochs: int | None,
    augment: str,
    no_target_labels: bool,
    label_cost: float | None,
    error_cost: float | None,
    cpu_hour_cost: float | None,
    windows_per_day: float | None,
    devices: int | None,
    jobs: int,
    as_json: bool,
    **selection: Any,
) -> None:
    """Find out on your own recordings what adaptation would do, before anything is rolled out.

    The command trains on --source, then follows the devices of --target in time order, with one seed and 32 windows at
    a time. It writes pilot.html for people, pilot.json for programs, and a bundle and acclimate.env to start a worker
    with. It uses labels of the target for scores alone. Give all costs in one currency of your choice. Without --data
    it pilots a simulated fleet. It takes several minutes.
    """
    from acclimate.infra.allocator import keep_freed_memory

    keep_freed_memory()
    from acclimate.streams.lab.pilot.conclusions import complete_report
    from acclimate.streams.lab.pilot.files import check_out, write_pilot
    from acclimate.streams.lab.pilot.options import PilotOptions, complete_costs
    from acclimate.streams.lab.pilot.study import run_study
    from acclimate.streams.lab.pilot.work import load_data

    check_out(out, force)
    options = PilotOptions(selection, seed, augment, not no_target_labels, epochs, jobs)
    dataset = load_data(options)
    costs = complete_costs(dataset, label_cost, error_cost, cpu_hour_cost, windows_per_day, devices)
    started = time.monotonic()
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    # Beside the result, so that moving is one step; removed however this ends.
    with tempfile.TemporaryDirectory(
        prefix=f".{out.absolute().name}-", dir=out.absolute().parent, ignore_cleanup_errors=True
    ) as folder:
        scratch = Path(folder)
        with _progress() as progress:
            findings = run_study(options, dataset, scratch, progress)
        report = complete_report(findings, costs, _command_line(), round(time.monotonic() - started, 1))
        files = write_pilot(out, report, Path(findings.bundle), scratch, force)
    if as_json:
        click.echo(files["json"].read_text(encoding="utf-8"), nl=False)
    else:
        _print_summary(report, files)


@contextmanager
def _progress() -> Iterator["Progress"]:
    """Show what is being done on standard error: bars, or a line per finished job where nobody looks."""
    if not sys.stderr.isatty():

        def say(job: str, done: int, of: int) -> None:
            if of == 0:
                click.echo(f"done: {job}", err=True)

        yield say
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        whole = bar.add_task("pilot", total=None)
        tasks: dict[str, TaskID] = {}

        def show(job: str, done: int, of: int) -> None:
            if of == 0:
                if job in tasks:
                    bar.remove_task(tasks.pop(job))
                bar.update(whole, description=f"pilot, done: {job}")
                return
            if job not in tasks:
                tasks[job] = bar.add_task(job)
            bar.update(tasks[job], total=of, completed=done)

        yield show


def _command_line() -> str:
    return shlex.join(["acclimate", *sys.argv[1:]])


def _print_summary(report: "Report", files: dict[str, Path]) -> None:
    from rich.console import Console
    from rich.table import Table

    from acclimate.streams.lab.pilot.advice import points

    def told(gain: "Gain | None") -> list[str]:
        if gain is None:
            return ["", "", ""]
        worst_to_best = f"{points(gain.worst)} to {points(gain.best)}"
        return [points(gain.mean), worst_to_best, f"{len(gain.harmed)} of {gain.devices}"]

    gains = report.expected if report.measured is None else report.measured
    where = f"expected from {report.expected_by}" if report.measured is None else "measured"
    table = Table(title=f"pilot on {report.data}: change in accuracy, points, {where}", title_justify="left")
    table.add_column("rung")
    for name in ("mean", "worst to best", "harmed", "us/window", "state bytes", "net per year"):
        table.add_column(name, justify="right")
    years = {year.rung: year for year in report.years}
    robust = ["robust"] if report.recipe != "none" else []
    for name in ["source", *robust, *(name for name in report.cost if name != "source")]:
        cost = report.cost["source" if name == "robust" else name]
        figures = ["n/a", "n/a"] if cost is None else [f"{1e6 * cost.seconds_per_window:.0f}", f"{cost.state_bytes}"]
        net = f"{years[name].net[0]:,.0f}" if name in years else ""
        table.add_row(name, *told(gains.get(name)), *figures, net)
    Console().print(table)
    click.echo(f"recipe  {report.recipe}")
    click.echo(f"mode    {report.mode}: {' '.join(report.reasons)}")
    for risk in report.risks:
        if risk.tone == "bad":
            click.echo(f"  !  {risk.text}")
    if report.costs.assumed:
        click.echo(f"assumed, for want of options: {', '.join(report.costs.assumed)}")
    for path in files.values():
        click.echo(str(path))
    click.echo(f"{report.seconds:.0f} s")
