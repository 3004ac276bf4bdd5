"""Read arrays of an npz file that a stranger may have made.

A zip member declares its shape before its data, so a file of a few bytes can ask for terabytes. Declared sizes are read
and capped first, nothing is ever unpickled, and what is wrong ends as a `DataError` that names the file and the array.
"""

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from acclimate.adaptation.errors import ConfigError, DataError

__all__ = ["MAX_ARRAY_BYTES", "array_names", "read_arrays"]

MAX_ARRAY_BYTES = 4 * 2**30


def array_names(path: Path) -> tuple[str, ...]:
    """Give the names of the arrays in a file, in stored order.

    Raises:
        ConfigError: The file does not exist.
        DataError: The file is not an npz file.
    """
    if not path.is_file():
        raise ConfigError(f"no file {path}; give an .npz file with an array X and a label array")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is not an .npz file (a zip of arrays, as numpy.savez writes it)", "not_npz")
    with zipfile.ZipFile(path) as archive:
        return tuple(name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy"))


def read_arrays(path: Path, names: Iterable[str], limit_bytes: int = MAX_ARRAY_BYTES) -> dict[str, NDArray[np.generic]]:
    """Read the named arrays and no others.

    Args:
        path: The npz file.
        names: Arrays to read; each must exist (see `array_names`).
        limit_bytes: Largest size that one array may declare; the default is 4 GiB.

    Raises:
        DataError: An array holds Python objects, declares more than ``limit_bytes``, or is damaged.
    """
    arrays: dict[str, NDArray[np.generic]] = {}
    with zipfile.ZipFile(path) as archive:
        for name in names:
            try:
                with archive.open(f"{name}.npy") as member:
                    _check_header(member, limit_bytes)
                with archive.open(f"{name}.npy") as member:
                    arrays[name] = npy.read_array(member, allow_pickle=False)
            except (ValueError, EOFError, OSError, zipfile.BadZipFile, NotImplementedError) as error:
                raise DataError(f"{path}: array {name!r} cannot be read: {error}", "bad_array") from error
    return arrays


def _check_header(member: IO[bytes], limit_bytes: int) -> None:
    version = npy.read_magic(member)
    if version == (1, 0):
        shape, _, dtype = npy.read_array_header_1_0(member)
    elif version == (2, 0):
        shape, _, dtype = npy.read_array_header_2_0(member)
    else:
        raise ValueError(f"npy format version {version} is not supported, expected 1.0 or 2.0")
    size_bytes = dtype.itemsize
    for extent in shape:
        size_bytes *= int(extent)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never loaded; store numbers")
    if size_bytes > limit_bytes:
        raise ValueError(f"it declares {size_bytes} bytes (shape {shape}), more than the limit of {limit_bytes}")
