"""The folder of a study: bound to one configuration, used by one run at a time, resumed without being told.

binding.json      everything that its results depend on
finished.jsonl    finished tasks
sources/          source models
results.json, summary.md, figures/    made from these, any number of times
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import portalocker
from portalocker import LockFlags

from acclimate.adaptation.errors import ConfigError
from acclimate.registry.folder import replace_file
from acclimate.streams.lab.study.selection import SIMULATION_SEED

__all__ = ["FINISHED_FILE", "check_binding", "data_binding", "open_folder", "read_binding", "source_path"]

FINISHED_FILE = "finished.jsonl"

_BINDING = "binding.json"
_LOCK = ".lock"
_OURS = (FINISHED_FILE, "sources", "runs", "results.json", "summary.md", "figures", _BINDING, _LOCK)


@contextmanager
def open_folder(folder: Path, binding: Mapping[str, Any], force: bool) -> Iterator[None]:
    """Hold the folder for one run: make it, go on in it, or with ``force`` begin anew.

    Raises:
        ConfigError: It holds something else, results of another configuration, or another run is using it.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; choose a folder for the results")
    if folder.is_dir():
        foreign = sorted({entry.name for entry in folder.iterdir()} - set(_OURS))
        known = (folder / _BINDING).exists() or set(os.listdir(folder)) <= {_LOCK}
        if not known:
            raise ConfigError(
                f"{folder} is not empty and holds no evaluation (it has {foreign[:5] or os.listdir(folder)[:5]}); "
                "choose another --out"
            )
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as lock:
        try:
            portalocker.lock(lock, LockFlags.EXCLUSIVE | LockFlags.NON_BLOCKING)
        except portalocker.AlreadyLocked as error:
            raise ConfigError(
                f"another evaluation is running in {folder}; wait for it or choose another --out"
            ) from error
        _bind(folder, _as_stored(binding), force)
        yield


def read_binding(folder: Path) -> dict[str, Any]:
    """Return what the folder is bound to.

    Raises:
        ConfigError: It holds no evaluation.
    """
    path = folder / _BINDING
    if not path.exists():
        raise ConfigError(f"{folder} holds no evaluation")
    binding: dict[str, Any] = json.loads(path.read_text())
    return binding


def data_binding(selection: Mapping[str, Any]) -> dict[str, Any]:
    """Return how results depend on recordings: on their name, their content and the rows that are selected.

    Args:
        selection: Data options by name, as `acclimate.streams.lab.study.selection.selected_dataset` takes them.

    Raises:
        ConfigError: The file of recordings cannot be read.
    """
    data = selection.get("data")
    rest = {name: value for name, value in selection.items() if name != "data"}
    return {
        "data": Path(data).name if data is not None else f"simulated fleet, seed {SIMULATION_SEED}",
        "data_sha256": _file_sha256(Path(data)) if data is not None else None,
        "selection": {name: list(value) if isinstance(value, tuple) else value for name, value in rest.items()},
    }


def check_binding(folder: Path, binding: Mapping[str, Any]) -> None:
    """Refuse a folder whose results belong to another configuration.

    Raises:
        ConfigError: They do, or it holds no evaluation.
    """
    found, wanted = read_binding(folder), _as_stored(binding)
    differing = [name for name in {**wanted, **found} if found.get(name) != wanted.get(name)]
    if differing:
        texts = "; ".join(
            f"{name}: {_short(found.get(name))} there, {_short(wanted.get(name))} now" for name in differing
        )
        raise ConfigError(
            f"{folder} holds results of another configuration ({texts}); choose another --out, repeat the options "
            "of that run to go on with it, or --force to delete its results"
        )


def source_path(folder: Path, recipe: str, seed: int, suffix: str) -> Path:
    """Return where a part of a source is kept, or of what belongs to it.

    >>> str(source_path(Path("out"), "gain+noise:0.5", 0, "json"))
    'out/sources/seed-0-gain-noise-0.5.json'
    """
    return folder / "sources" / f"seed-{seed}-{re.sub('[^A-Za-z0-9.]+', '-', recipe)}.{suffix}"


def _bind(folder: Path, binding: dict[str, Any], force: bool) -> None:
    path = folder / _BINDING
    if path.exists():
        if read_binding(folder) == binding:
            return
        if not force:
            check_binding(folder, binding)
        for name in _OURS:
            target = folder / name
            if name == _LOCK:
                continue
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
    replace_file(path, (json.dumps(binding, indent=1) + "\n").encode())


def _file_sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; expected an .npz file of recordings") from error


def _as_stored(binding: Mapping[str, Any]) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(json.dumps(binding))
    return stored


def _short(value: object) -> str:
    if isinstance(value, dict):
        value = {name: part for name, part in value.items() if part}
    text = json.dumps(value)
    return text if len(text) <= 200 else text[:200] + "..."
