"""A bundle of kind ``cta``: a second encoder that was aligned with one source bundle, as a folder.

    manifest.json         what it is, for which source bundle, and the digest of every other file
    manifest.sig          signature over the exact bytes of the manifest (may be missing; not looked at here)
    aligned.safetensors   encoder/NAME, head/NAME and projector/NAME
    canary.safetensors    windows and what source and second encoder answer together, before any adaptation

The continual agent runs it with torch, because it learns on; no graphs are needed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import Field

from acclimate.adaptation.errors import ContractError
from acclimate.adaptation.model.spec import NetworkSpec, expected_tensors
from acclimate.registry.bundles.manifest import (
    Card,
    FileEntry,
    PartEntries,
    Sealed,
    Shape,
    check_pairs,
    sealed,
    unsealed,
)
from acclimate.registry.bundles.parts import read_parts, write_parts
from acclimate.registry.canonical import Digest, Extensible, Name, refusing

__all__ = [
    "ALIGNED_FILES",
    "AlignedBundle",
    "AlignedCompatibility",
    "AlignedFile",
    "AlignedManifest",
    "aligned_manifest_bytes",
    "aligned_shapes",
    "read_aligned_bundle",
    "write_aligned_bundle",
]

AlignedFile = Literal["aligned.safetensors", "canary.safetensors"]
ALIGNED_FILES: tuple[AlignedFile, ...] = get_args(AlignedFile)
FloatArray = npt.NDArray[np.float32]


class AlignedCompatibility(Extensible):
    """The source bundle that an encoder was made for, and the network that both have."""

    source_sha256: Digest
    network_sha256: Digest


class AlignedManifest(Sealed):
    """Describe one aligned encoder."""

    schema_version: Literal[1] = 1
    kind: Literal["cta"] = "cta"
    settings: dict[Name, str | bool | int | float]
    unsafe_augmentations: tuple[Name, ...]
    compatibility: AlignedCompatibility
    card: Annotated[Card, Field(max_length=256)]
    tensors: Annotated[dict[Name, Shape], Field(max_length=256)]
    files: PartEntries


@dataclass(frozen=True)
class AlignedBundle:
    """An aligned bundle that was read and checked.

    Args:
        manifest: The manifest.
        digest: The SHA-256 (hex) of the manifest's exact bytes, which covers all files.
        tensors, canary: The number arrays of both files, by name.
    """

    manifest: AlignedManifest
    digest: str
    tensors: Mapping[str, FloatArray]
    canary: Mapping[str, FloatArray]

    def check_source(self, digest: str, spec: NetworkSpec) -> None:
        """Refuse any source bundle but the one that this was made for.

        Raises:
            ContractError: It is another source bundle, or the tensors do not fit its network.
        """
        made_for = self.manifest.compatibility.source_sha256
        if made_for != digest:
            raise ContractError(
                f"this encoder was aligned with source bundle {made_for[:12]}, expected {digest[:12]}; align one for it"
            )
        for name, shape in aligned_shapes(spec).items():
            if name not in self.tensors or self.tensors[name].shape != shape:
                found = self.tensors[name].shape if name in self.tensors else "none"
                raise ContractError(f"aligned.safetensors: {name}: expected shape {shape}, found {found}")


def aligned_shapes(spec: NetworkSpec) -> dict[str, tuple[int, ...]]:
    """Return name and shape of the tensors that every aligned encoder of a network has; the projector is its own."""
    named = expected_tensors(spec)
    encoder = {f"encoder/{name}": shape for name, shape in named.items() if not name.startswith("head.")}
    return {**encoder, "head/weight": named["head.weight"], "head/bias": named["head.bias"]}


def read_aligned_bundle(folder: Path) -> AlignedBundle:
    """Return the aligned bundle in a folder.

    Raises:
        ContractError: Anything is missing, unknown, a link, too large, damaged, inconsistent or newer than this code.
    """
    parts = read_parts(folder, ALIGNED_FILES, _parsed)
    classes = parts.manifest.tensors["head/bias"][0]
    canary: dict[str, tuple[int | None, ...]] = {"windows": (None, None, None), "probabilities": (None, classes)}
    return AlignedBundle(
        manifest=parts.manifest,
        digest=parts.digest,
        tensors=parts.tensors("aligned.safetensors", parts.manifest.tensors),
        canary=parts.tensors("canary.safetensors", canary),
    )


def write_aligned_bundle(folder: Path, manifest: bytes, parts: Mapping[AlignedFile, bytes]) -> AlignedBundle:
    """Write a bundle in one step and return it as read back; a crash leaves nothing or the whole bundle.

    Raises:
        ContractError: The folder exists, or the parts would be refused on reading.
    """
    write_parts(folder, manifest, parts, check=read_aligned_bundle)
    return read_aligned_bundle(folder)


def aligned_manifest_bytes(
    settings: Mapping[str, str | bool | int | float],
    unsafe_augmentations: tuple[str, ...],
    compatibility: AlignedCompatibility,
    card: Card,
    tensors: Mapping[str, tuple[int, ...]],
    files: Mapping[str, FileEntry],
) -> bytes:
    """Return the exact bytes of the manifest of these parts.

    Raises:
        ContractError: A value does not fit; reading would refuse it.
    """
    with refusing("manifest.json"):
        manifest = AlignedManifest(
            settings=dict(settings),
            unsafe_augmentations=unsafe_augmentations,
            compatibility=compatibility,
            card=card,
            tensors=dict(tensors),
            files=dict(files),
        )
    raw = sealed(manifest)
    _parsed(raw)
    return raw


def _parsed(raw: bytes) -> AlignedManifest:
    manifest = unsealed(AlignedManifest, raw)
    shapes = manifest.tensors
    width = shapes.get("head/weight", (0, 0))
    check_pairs(
        (
            ("files", sorted(ALIGNED_FILES), sorted(set(ALIGNED_FILES) & set(manifest.files))),
            ("tensors: axes of head/weight", 2, len(width)),
            ("tensors: head/bias", width[:1], shapes.get("head/bias")),
            ("tensors: projector/0.weight", (width[-1],) * 2, shapes.get("projector/0.weight")),
            ("tensors: projector/0.bias", (width[-1],), shapes.get("projector/0.bias")),
            ("tensors: projector/2.weight, inputs", (width[-1],), shapes.get("projector/2.weight", ())[1:]),
            ("tensors: projector/2.bias", shapes.get("projector/2.weight", ())[:1], shapes.get("projector/2.bias")),
        )
    )
    return manifest
