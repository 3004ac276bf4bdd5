"""Files that are there whole or not at all: folders with a fixed set of names, read without following links."""

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping, Set
from pathlib import Path

from acclimate.adaptation.errors import ContractError

__all__ = ["check_names", "read_file", "read_part", "replace_file", "write_folder"]

_MAX_PART_BYTES = 256 * 1024**2


def check_names(folder: Path, required: Set[str], optional: Set[str] | None = None) -> None:
    """Check that a folder holds the required files and nothing else but optional ones; None allows any.

    Raises:
        ContractError: A file is missing or unknown, or there is no such folder.
    """
    try:
        with os.scandir(folder) as entries:
            found = {entry.name for entry in entries}
    except OSError as error:
        raise ContractError(f"{folder}: expected a folder, found: {error.strerror}") from error
    missing, unknown = sorted(required - found), sorted(() if optional is None else found - required - optional)
    if missing or unknown:
        raise ContractError(f"{folder}: expected exactly {sorted(required)}; missing {missing}, unknown {unknown[:5]}")


def read_file(folder: Path, name: str, limit: int) -> bytes:
    """Return a regular file's content; links, pipes and devices are refused without being followed or waited for.

    Raises:
        ContractError: It is not a regular file, cannot be read or has more than ``limit`` bytes.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(folder / name, flags)
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise ContractError(f"{name}: expected a regular file, found something else")
            if status.st_size > limit:
                raise ContractError(f"{name}: expected at most {limit} bytes, found {status.st_size}")
            content = file.read(limit + 1)
    except OSError as error:
        raise ContractError(f"{name}: expected a readable regular file, found: {error.strerror}") from error
    if len(content) > limit:  # it grew while being read
        raise ContractError(f"{name}: expected at most {limit} bytes, found more")
    return content


def read_part(folder: Path, name: str, sha256: str, size_bytes: int) -> bytes:
    """Return a file's content, checked against size and SHA-256 (hex); see `read_file`.

    Raises:
        ContractError: It cannot be read, is larger than 256 MiB, or has another size or digest.
    """
    content = read_file(folder, name, _MAX_PART_BYTES)
    if len(content) != size_bytes:
        raise ContractError(f"{name}: expected {size_bytes} bytes, found {len(content)}; the file is damaged")
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise ContractError(f"{name}: expected SHA-256 {sha256}, found {digest}; the file is damaged")
    return content


def replace_file(path: Path, content: bytes) -> None:
    """Write a file or replace it, in one step; durable when this returns. It has one writer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.new")
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    _sync(path.parent)


def write_folder(folder: Path, contents: Mapping[str, bytes], check: Callable[[Path], object]) -> None:
    """Write files into a new folder, or nothing at all, also when the process or the machine dies on the way.

    Args:
        folder: The new folder; it must not exist, and its parent is created.
        contents: The bytes of every file, by name.
        check: A function called with the finished folder before it gets its name; an exception takes everything back.

    Raises:
        ContractError: The folder exists, or came into being meanwhile.
    """
    if os.path.lexists(folder):
        raise ContractError(f"{folder}: expected a new folder, found something; choose another")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, content in contents.items():
            with (unfinished / name).open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        check(unfinished)
        unfinished.chmod(0o755)  # mkdtemp makes it private
        _sync(unfinished)
        if os.path.lexists(folder):
            raise ContractError(f"{folder}: expected a new folder, found one made meanwhile; choose another name")
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    _sync(folder.parent)


def _sync(folder: Path) -> None:
    """Make names in a folder durable; a rename is not before this."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
