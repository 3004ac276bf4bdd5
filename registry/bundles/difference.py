"""Compare two bundles of one kind: settings and names one by one, weights by their distance.

(1) distance of a tensor = |b - a|_2 / |a|_2; only where both have it in the same shape
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from acclimate.adaptation.errors import ContractError
from acclimate.registry.bundles.manifest import MANIFEST_FILE

__all__ = ["Difference", "difference"]

_SKIPPED = ("checksum", "files")  # every change shows there; it says nothing


@dataclass(frozen=True)
class Difference:
    """The difference between two bundles.

    Attributes:
        values: Manifest entries that differ, by path: before and after; None where there is none.
        tensors: (1) by ``FILE: NAME``; None where shapes differ or one side lacks it.
    """

    values: Mapping[str, tuple[object, object]]
    tensors: Mapping[str, float | None]


def difference(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> Difference:
    """Compare two bundles.

    Args:
        before, after: Files by name, as the catalogue gives them.

    Raises:
        ContractError: A file does not belong to a bundle.
    """
    first, second = _flat(before), _flat(after)
    paths = [path for path in {**first, **second} if path.partition(".")[0] not in _SKIPPED]
    values = {path: (first.get(path), second.get(path)) for path in paths if first.get(path) != second.get(path)}
    return Difference(values=values, tensors=_tensors(before, after))


def _flat(files: Mapping[str, bytes]) -> dict[str, object]:
    try:
        manifest = json.loads(files[MANIFEST_FILE])
    except (KeyError, ValueError) as error:
        raise ContractError(f"{MANIFEST_FILE}: expected the manifest of a bundle, found: {error!r}") from error
    found: dict[str, object] = {}

    def walk(path: str, value: object) -> None:
        if isinstance(value, dict) and value:
            for name, each in value.items():
                walk(f"{path}.{name}" if path else str(name), each)
        else:
            found[path] = value

    walk("", manifest)
    return found


def _tensors(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for file in sorted({*before, *after}):
        if not file.endswith(".safetensors") or before.get(file) == after.get(file):
            continue
        try:
            old, new = (load(files[file]) if file in files else {} for files in (before, after))
        except SafetensorError as error:
            raise ContractError(f"{file}: expected tensors, found: {error}") from error
        for name in sorted({*old, *new}):
            a, b = old.get(name), new.get(name)
            if a is None or b is None or a.shape != b.shape:
                found[f"{file}: {name}"] = None
                continue
            distance = float(np.linalg.norm(b.astype(np.float64) - a.astype(np.float64)))
            if distance:
                norm = float(np.linalg.norm(a.astype(np.float64)))
                found[f"{file}: {name}"] = distance / norm if norm else float("inf")
    return found
