"""The table per device that ``collect`` and ``demo`` print."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from acclimate.streams.audit.summary import Report

__all__ = ["print_report", "progress_bar"]


def print_report(report: "Report", verdicts: list[tuple[str, str]], notes: Mapping[str, str]) -> None:
    """Print the table per device and what a reader must know, to standard output."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from acclimate.streams.audit.summary import HARM

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")  # fits 80 columns
    table.add_column("device", overflow="fold")
    if notes:
        table.add_column("what it got", no_wrap=True)
    for column in ("windows", "source", "answered", "adapted", "shift", "p95"):
        table.add_column(column, justify="right", no_wrap=True)
    for device in report["per_device"]:
        accuracy, shift = device["accuracy"], device["shift"]
        answered = _percent(accuracy["answered"])
        change = accuracy["answered"] - accuracy["source"]
        if abs(change) >= HARM:
            answered = f"[{'green' if change > 0 else 'red'}]{answered}[/]"
        note = [escape(notes.get(device["device"], ""))] if notes else []
        table.add_row(
            escape(device["device"]),
            *note,
            f"{device['windows']}",
            _percent(accuracy["source"]),
            answered,
            _percent(accuracy["adapted"]),
            f"{shift['median']:.2f}",
            f"{shift['p95']:.2f}",
        )
    console = Console(highlight=False)
    console.print(table)
    console.print(
        "[dim]correct answers of the source model, as answered, adapted everywhere; median shift magnitude[/]\n"
    )
    marks = {"good": "[green]+[/]", "bad": "[bold red]![/]", "plain": " "}
    for tone, text in verdicts:
        console.print(f"{marks[tone]} {escape(text)}", soft_wrap=True)


@contextmanager
def progress_bar(shown: bool) -> "Iterator[Callable[[str, int, int], None]]":
    """Give a function that shows how far a stage is, on standard error, where a person is looking at it."""
    if not shown or not click.get_text_stream("stderr").isatty():
        yield lambda what, done, of: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("  {task.description:12}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, visible=False)
        before = ""

        def show(what: str, done: int, of: int) -> None:
            nonlocal before
            if what != before:
                bar.reset(task, description=what, total=of, visible=True)
                before = what
            bar.update(task, completed=done, total=of, visible=done < of)

        yield show


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
