"""Write the settings that a worker is started with as a file."""

import shlex
from pathlib import Path

from acclimate.infra.settings import PREFIX
from acclimate.streams.lab.pilot.conclusions import Report

__all__ = ["environment_file"]


def environment_file(report: Report, bundle: Path) -> str:
    """Return settings of a worker, for a shell (``set -a; . FILE``) and, without spaces in the path, for containers."""
    comments = [
        f"Settings to start with, from a pilot on {report.data}.",
        f"Mode {report.mode}: {' '.join(report.reasons)}",
        "Where Kafka is, and how to log in there, is for you to add: docs/settings.md.",
    ]
    # One line each: a name from a recording must not end a comment and become a setting.
    lines = [f"# {' '.join(text.split())}" for text in comments]
    return "\n".join([*lines, f"{PREFIX}BUNDLE={shlex.quote(str(bundle))}", f"{PREFIX}MODE={report.mode}"]) + "\n"
