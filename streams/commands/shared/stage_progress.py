"""Progress of work in stages: a bar on standard error, or a line now and then where nobody looks."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

__all__ = ["StageProgress", "stage_progress"]

StageProgress = Callable[[str, int, int, str], None]  # stage, done, of, what came last

_LINE_EVERY_S = 60.0


@contextmanager
def stage_progress() -> Iterator[StageProgress]:
    """Give what shows the progress."""
    if not sys.stderr.isatty():
        last = [time.monotonic()]

        def say(stage: str, done: int, of: int, what: str) -> None:
            if done == of or time.monotonic() - last[0] >= _LINE_EVERY_S:
                last[0] = time.monotonic()
                click.echo(f"{stage}: {done} of {of}" + (f" ({what})" if what else ""), err=True)

        yield say
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.fields[stage]}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.description}"), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, stage="starting")

        def show(stage: str, done: int, of: int, what: str) -> None:
            bar.update(task, total=of, completed=done, description=what, stage=stage)

        yield show
