"""The parts of a bundle: a folder with a manifest, the files that the manifest names, and perhaps a signature."""

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from acclimate.registry.bundles.manifest import MANIFEST_FILE, MAX_MANIFEST_BYTES, SIGNATURE_FILE, FileEntry
from acclimate.registry.bundles.tensor_file import read_tensors
from acclimate.registry.folder import check_names, read_file, read_part, write_folder

__all__ = ["Parts", "file_entries", "read_parts", "write_parts"]

FloatArray = npt.NDArray[np.float32]
_Part = TypeVar("_Part", bound=str)


class _WithFiles(Protocol):
    @property
    def files(self) -> Mapping[Any, FileEntry]: ...


_Manifest = TypeVar("_Manifest", bound=_WithFiles)


@dataclass(frozen=True)
class Parts(Generic[_Manifest]):
    """The content of a bundle's folder, checked against its manifest.

    Attributes:
        manifest: The manifest.
        digest: The SHA-256 (hex) of the manifest's exact bytes, which covers all files.
        contents: The bytes of every other file, by name.
    """

    manifest: _Manifest
    digest: str
    contents: Mapping[str, bytes]

    def tensors(self, name: str, expected: Mapping[str, tuple[int | None, ...]]) -> dict[str, FloatArray]:
        """Return the arrays of one file; see `acclimate.registry.bundles.tensor_file.read_tensors`."""
        return read_tensors(name, self.contents[name], expected)


def read_parts(folder: Path, names: Collection[str], parse: Callable[[bytes], _Manifest]) -> Parts[_Manifest]:
    """Return the content of a bundle's folder.

    Args:
        folder: The folder.
        names: The files that a bundle of this kind must have beside its manifest. Others that the manifest lists may be
            there for newer versions: their digests are checked too.
        parse: The function that reads the manifest and checks it in itself.

    Raises:
        ContractError: Anything is missing, not in the manifest, a link, too large or damaged, or the manifest is
            refused.
    """
    check_names(folder, required={MANIFEST_FILE, *names})
    raw = read_file(folder, MANIFEST_FILE, MAX_MANIFEST_BYTES)
    manifest = parse(raw)
    check_names(folder, required={MANIFEST_FILE, *manifest.files}, optional={SIGNATURE_FILE})
    contents = {name: read_part(folder, name, entry.sha256, entry.size_bytes) for name, entry in manifest.files.items()}
    return Parts(manifest, hashlib.sha256(raw).hexdigest(), contents)


def write_parts(
    folder: Path, manifest: bytes, contents: Mapping[_Part, bytes], check: Callable[[Path], object]
) -> None:
    """Write a bundle into a new folder in one step; see `acclimate.registry.folder.write_folder`.

    Raises:
        ContractError: The folder exists, or ``check`` refuses what was written.
    """
    write_folder(folder, {MANIFEST_FILE: manifest, **{str(name): each for name, each in contents.items()}}, check)


def file_entries(contents: Mapping[_Part, bytes]) -> dict[str, FileEntry]:
    """Return what a manifest says of these files.

    >>> file_entries({"a": b"12"})["a"].size_bytes
    2
    """
    return {
        name: FileEntry(sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
        for name, content in contents.items()
    }
