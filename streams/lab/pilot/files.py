"""Write the files of a pilot: the page for people, all figures for programs, and a worker's bundle and settings.

pilot.html      one file without any outside reference
pilot.json      every figure of the page and those behind it
bundle/         the source model, trained by the recipe that was chosen
acclimate.env   settings of a worker that serves it
"""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from acclimate.adaptation.errors import ConfigError
from acclimate.streams.lab.making.source_model import check_folder
from acclimate.streams.lab.pilot.conclusions import Report
from acclimate.streams.lab.pilot.environment import environment_file
from acclimate.streams.lab.pilot.page import render_page

__all__ = ["FILES", "check_out", "write_pilot"]

FILES = {"html": "pilot.html", "json": "pilot.json", "env": "acclimate.env", "bundle": "bundle"}


def check_out(out: Path, force: bool) -> None:
    """Refuse a folder that holds anything but, with ``force``, an older pilot.

    Raises:
        ConfigError: It does.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; choose a folder for the pilot with --out")
    names = {entry.name for entry in out.iterdir()} if out.is_dir() else set()
    if names and not force:
        raise ConfigError(f"{out} is not empty; choose another folder, or --force to replace the pilot in it")
    foreign = sorted(names - set(FILES.values()))
    if foreign:
        raise ConfigError(f"{out} holds other files than a pilot's ({foreign[:5]}); --force replaces those only")
    check_folder(out / FILES["bundle"], force)


def write_pilot(out: Path, report: Report, bundle: Path, scratch: Path, force: bool) -> dict[str, Path]:
    """Write everything into ``scratch`` first and then move it into ``out``; return the files by kind.

    Args:
        out: The folder of the pilot.
        report: The report that `complete_report` gives.
        bundle: The bundle to serve; it is moved.
        scratch: A folder on the same file system as ``out``.
        force: Replace an older pilot.

    Raises:
        ConfigError: The folder holds something else.
    """
    files = {kind: out / name for kind, name in FILES.items()}
    served = out.resolve() / FILES["bundle"]
    report = replace(report, bundle=str(served))
    told = _told(report) | {"files": {kind: str(path) for kind, path in files.items()}}
    new = scratch / "pilot"
    new.mkdir()
    bundle.rename(new / FILES["bundle"])
    (new / FILES["env"]).write_text(environment_file(report, served), encoding="utf-8")
    (new / FILES["json"]).write_text(json.dumps(told, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    (new / FILES["html"]).write_text(render_page(report), encoding="utf-8")
    check_out(out, force)  # the study took its time: whatever came meanwhile is not ours to remove
    out.mkdir(parents=True, exist_ok=True)
    for name in FILES.values():
        if (out / name).is_dir():
            shutil.rmtree(out / name)
        (new / name).rename(out / name)
    return files


def _told(report: Report) -> dict[str, Any]:
    """Return the report as plain values, with the windows of a year and without the state of the code that chose."""
    told = asdict(report)
    told["costs"]["windows_per_year"] = report.costs.windows_per_year
    if told["choice"] is not None:
        del told["choice"]["code"]
    return told
