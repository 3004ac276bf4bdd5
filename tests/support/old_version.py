"""The version that users have, in an environment of its own, built from this repository's history as they install it.

It imports nothing of this project and names modules of the old version only: those names never change.
"""

import io
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
OLD_COMMIT = "f03a09a"  # version 0.1
EXTRAS = ("worker", "train", "registry")


@dataclass(frozen=True)
class Version:
    """An installed version.

    Attributes:
        name: The first part of the names of its logs.
        bin: The folder with its `python` and `acclimate`.
        edge: The module of its `EdgeClient`.
        settings: The module of its `load_settings`.
    """

    name: str
    bin: Path
    edge: str
    settings: str


def old_version() -> Version:
    """Return version 0.1; the first call takes a minute or two, later ones find it under ``out/``.

    Raises:
        AssertionError: The history does not reach back to it, or a package cannot be installed.
    """
    folder = ROOT / "out" / "old-version" / OLD_COMMIT
    ready = folder / "ready"
    if not ready.exists():
        shutil.rmtree(folder, ignore_errors=True)  # half made
        folder.mkdir(parents=True)
        _unpack(folder / "code")
        _install(folder / "code", folder)
        ready.touch()
    return Version("old", folder / "venv" / "bin", "streams.edge", "infra.settings")


def _unpack(code: Path) -> None:
    archive = subprocess.run(["git", "archive", OLD_COMMIT], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        raise AssertionError(
            f"this clone has no commit {OLD_COMMIT}, the version that users have; fetch the whole history: "
            f"git fetch --unshallow --tags\n{archive.stderr.decode()}"
        )
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(code, filter="data")


def _install(code: Path, folder: Path) -> None:
    """Install the packages that its own lock file names, and its wheel."""
    venv = folder / "venv"
    into = ("--python", str(venv / "bin" / "python"))
    extras = [part for extra in EXTRAS for part in ("--extra", extra)]
    _uv("venv", "-q", "--python", sys.executable, str(venv))
    _uv("pip", "install", "-q", *into, "-r", "pyproject.toml", *extras, "-c", "requirements.lock", cwd=code)
    _uv("build", "-q", "--wheel", "--no-build-isolation", "--python", sys.executable, "-o", str(folder), cwd=code)
    _uv("pip", "install", "-q", *into, "--no-deps", *map(str, folder.glob("*.whl")))


def _uv(*arguments: str, cwd: Path = ROOT) -> None:
    uv = Path(sys.executable).with_name("uv")
    done = subprocess.run([uv, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"uv {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}"
