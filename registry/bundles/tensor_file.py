"""Number arrays as safetensors: float32 only, with names and shapes that are known before the file is opened.

The header is bounded and compared before anything is decoded; the format holds no code.
"""

import json
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from acclimate.adaptation.errors import ContractError

__all__ = ["read_tensors", "write_tensors"]

_MAX_HEADER_BYTES = 1024 * 1024
_MAX_TENSORS = 4096

FloatArray = npt.NDArray[np.float32]


def write_tensors(tensors: Mapping[str, FloatArray]) -> bytes:
    """Return the arrays as one safetensors file; the same arrays give the same bytes."""
    return save({name: np.asarray(value, order="C") for name, value in sorted(tensors.items())})


def read_tensors(file: str, content: bytes, expected: Mapping[str, tuple[int | None, ...]]) -> dict[str, FloatArray]:
    """Return the arrays of a safetensors file.

    Args:
        file: Name for messages.
        content: The whole file.
        expected: Name and shape of every tensor; None is any size of at least 1.

    Raises:
        ContractError: The file is damaged; a tensor is missing, unknown, not float32, of another shape or not finite.
    """
    header = _header(file, content)
    if set(header) != set(expected):
        missing, unknown = sorted(set(expected) - set(header)), sorted(set(header) - set(expected))
        raise ContractError(f"{file}: expected {len(expected)} tensors, missing {missing}, unknown {unknown}"[:2000])
    for name, shape in expected.items():
        entry = header[name]
        dtype, found = (entry.get("dtype"), entry.get("shape")) if isinstance(entry, dict) else (None, None)
        if dtype != "F32":
            raise ContractError(f"{file}: {name}: expected dtype F32, found {dtype!r}"[:2000])
        if not isinstance(found, list) or not _fits(found, shape):
            raise ContractError(f"{file}: {name}: expected shape {shape}, found {found!r}"[:2000])
    try:
        tensors = load(content)
    except SafetensorError as error:
        raise ContractError(f"{file}: expected a safetensors file, found: {error}") from error
    for name, values in tensors.items():
        if not np.isfinite(values).all():
            raise ContractError(f"{file}: {name}: expected finite values, found NaN or infinity")
    return tensors


def _header(file: str, content: bytes) -> dict[str, object]:
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or size > len(content) - 8:
        raise ContractError(f"{file}: expected a header of {size} bytes, found a file of {len(content)} bytes")
    if size > _MAX_HEADER_BYTES:
        raise ContractError(f"{file}: expected a header of at most {_MAX_HEADER_BYTES} bytes, found {size}")
    try:
        header = json.loads(content[8 : 8 + size])
    except (ValueError, RecursionError) as error:  # ValueError: also bad UTF-8 and absurdly long integers
        raise ContractError(f"{file}: expected a JSON header, found: {error}") from error
    if not isinstance(header, dict) or len(header) > _MAX_TENSORS:
        raise ContractError(f"{file}: expected a header with at most {_MAX_TENSORS} tensors, found something else")
    return header


def _fits(found: list[object], shape: tuple[int | None, ...]) -> bool:
    if len(found) != len(shape):
        return False
    return all(
        isinstance(size, int) and not isinstance(size, bool) and size >= 1 and wanted in (None, size)
        for size, wanted in zip(found, shape, strict=True)
    )
