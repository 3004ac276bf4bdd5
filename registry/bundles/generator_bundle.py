"""A generator bundle: a meta-trained generator as a folder, for one source bundle, ready to run without torch.

    manifest.json           what it is, for which source bundle, and the digest of every other file
    manifest.sig            signature over the exact bytes of the manifest (may be missing; not looked at here)
    generator.safetensors   weights of the generator
    start.safetensors       what a device starts from: gamma and beta, the head's weight, and what MGG remembers
    canary.safetensors      a batch of windows and what must come of it
    gradient.onnx           a pass and the gradient of the loss
    generator.onnx          a step of MGG, or the parameters of GeneralizeFormer

The graphs hold the source's weights, so a bundle serves the source bundle that it names and no other. The weights of an
MGG alone fit any network (``network_sha256`` is then ``any``), by exporting it anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import Field

from acclimate.adaptation.errors import ContractError, DataError
from acclimate.adaptation.generators.engine import GeneralizeFormerEngine, Kind, MggEngine, make_engine
from acclimate.adaptation.generators.valid_range import ValidRange
from acclimate.adaptation.model.spec import NetworkSpec
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
    "GENERATOR_FILES",
    "GeneratorBundle",
    "GeneratorCompatibility",
    "GeneratorManifest",
    "Kind",
    "generator_manifest_bytes",
    "read_generator_bundle",
    "write_generator_bundle",
]

GeneratorFile = Literal[
    "generator.safetensors", "start.safetensors", "canary.safetensors", "gradient.onnx", "generator.onnx"
]
GENERATOR_FILES: tuple[GeneratorFile, ...] = get_args(GeneratorFile)
FloatArray = npt.NDArray[np.float32]

_CANARY_TOLERANCE = 1e-3  # of gamma, beta and probabilities, on any machine's arithmetic


class GeneratorCompatibility(Extensible):
    """The source bundle and the network that a generator was made for.

    Attributes:
        source_sha256: The digest of the source bundle whose weights the graphs hold.
        network_sha256: The digest of the network's description; ``any`` where the weights fit every network.
        layer_names, layer_widths: The names and widths of the BatchNorm layers, in order.
        statistics_schema: The version of what the gradient graph gives; 1: gradient, head_gradient, means, variances,
            features, mean_part, variance_part.
    """

    source_sha256: Digest
    network_sha256: Literal["any"] | Digest
    layer_names: tuple[Name, ...]
    layer_widths: tuple[Annotated[int, Field(ge=1, le=65_536)], ...]
    statistics_schema: Literal[1] = 1


class Range(Extensible):
    """The fields of `acclimate.adaptation.generators.valid_range.ValidRange`."""

    mean_limit: Annotated[float, Field(gt=0)]
    variance_limit: Annotated[float, Field(gt=0)]


class GeneratorManifest(Sealed):
    """Describe one generator."""

    schema_version: Literal[1] = 1
    kind: Kind
    settings: dict[Name, str | bool | int | float]
    compatibility: GeneratorCompatibility
    valid_range: Range
    card: Annotated[Card, Field(max_length=256)]
    weights: Annotated[dict[Name, Shape], Field(max_length=256)]
    start: Annotated[dict[Name, Shape], Field(max_length=32)]
    files: PartEntries


@dataclass(frozen=True)
class GeneratorBundle:
    """A generator bundle that was read and checked.

    Args:
        manifest: The manifest.
        digest: The SHA-256 (hex) of the manifest's exact bytes, which covers all files.
        weights, start, canary: The number arrays of these files, by name.
        gradient_graph, generator_graph: The two ONNX files.
    """

    manifest: GeneratorManifest
    digest: str
    weights: Mapping[str, FloatArray]
    start: Mapping[str, FloatArray]
    canary: Mapping[str, FloatArray]
    gradient_graph: bytes
    generator_graph: bytes

    @property
    def valid_range(self) -> ValidRange:
        """The range of shifts that the generator met in meta-training."""
        return ValidRange(**self.manifest.valid_range.model_dump())

    def check_source(self, digest: str, spec: NetworkSpec) -> None:
        """Refuse any source bundle but the one that this was made for.

        Raises:
            ContractError: It is another source bundle.
        """
        contract = self.manifest.compatibility
        if contract.source_sha256 != digest or contract.layer_widths != spec.widths:
            raise ContractError(
                f"this {self.manifest.kind} was made for source bundle {contract.source_sha256[:12]} with layers "
                f"{list(contract.layer_widths)}, expected {digest[:12]} with {list(spec.widths)}; meta-train one for it"
            )

    def engine(self) -> MggEngine | GeneralizeFormerEngine:
        """Return an engine that has passed the canary on this machine.

        Raises:
            ContractError: The graphs do not load, do not fit each other or miss what the canary expects.
        """
        engine = make_engine(
            self.manifest.kind, self.gradient_graph, self.generator_graph, self.start, self.valid_range
        )
        try:
            found = engine.first(self.canary["windows"])
        except DataError as error:
            raise ContractError(f"canary: {error}") from error
        for name in ("probabilities", "coordinates", "head_weight"):
            value, expected = getattr(found, name), self.canary[name]
            if value.shape != expected.shape or not np.abs(value - expected).max() <= _CANARY_TOLERANCE:
                raise ContractError(f"canary: {name} is not what the generator gave when it was made, on this machine")
        return engine


def read_generator_bundle(folder: Path) -> GeneratorBundle:
    """Return the generator bundle in a folder.

    Raises:
        ContractError: Anything is missing, unknown, a link, too large, damaged, inconsistent or newer than this code.
    """
    parts = read_parts(folder, GENERATOR_FILES, _parsed)
    manifest = parts.manifest
    head, p = manifest.start["head_weight"], manifest.start["coordinates"]
    canary: dict[str, tuple[int | None, ...]] = {
        "windows": (None, None, None),
        "probabilities": (None, head[0]),
        "coordinates": p,
        "head_weight": head,
    }
    return GeneratorBundle(
        manifest=manifest,
        digest=parts.digest,
        weights=parts.tensors("generator.safetensors", manifest.weights),
        start=parts.tensors("start.safetensors", manifest.start),
        canary=parts.tensors("canary.safetensors", canary),
        gradient_graph=parts.contents["gradient.onnx"],
        generator_graph=parts.contents["generator.onnx"],
    )


def write_generator_bundle(folder: Path, manifest: bytes, parts: Mapping[GeneratorFile, bytes]) -> GeneratorBundle:
    """Write a bundle in one step and return it as read back and tested; a crash leaves nothing or the whole bundle.

    Raises:
        ContractError: The folder exists, or the parts would be refused on reading.
    """
    write_parts(folder, manifest, parts, check=lambda written: read_generator_bundle(written).engine())
    return read_generator_bundle(folder)


def generator_manifest_bytes(
    kind: Kind,
    settings: Mapping[str, str | bool | int | float],
    compatibility: GeneratorCompatibility,
    valid_range: ValidRange,
    card: Card,
    shapes: Mapping[Literal["weights", "start"], Mapping[str, tuple[int, ...]]],
    files: Mapping[str, FileEntry],
) -> bytes:
    """Return the exact bytes of the manifest of these parts.

    Raises:
        ContractError: A value does not fit; reading would refuse it.
    """
    with refusing("manifest.json"):
        manifest = GeneratorManifest(
            kind=kind,
            settings=dict(settings),
            compatibility=compatibility,
            valid_range=Range(mean_limit=valid_range.mean_limit, variance_limit=valid_range.variance_limit),
            card=card,
            weights=dict(shapes["weights"]),
            start=dict(shapes["start"]),
            files=dict(files),
        )
    raw = sealed(manifest)
    _parsed(raw)
    return raw


def _parsed(raw: bytes) -> GeneratorManifest:
    manifest = unsealed(GeneratorManifest, raw)
    contract, start = manifest.compatibility, manifest.start
    coordinates = (2 * sum(contract.layer_widths),)
    pairs = (
        ("files", sorted(GENERATOR_FILES), sorted(set(GENERATOR_FILES) & set(manifest.files))),
        ("layer names", len(contract.layer_widths), len(contract.layer_names)),
        ("start: coordinates", coordinates, start.get("coordinates")),
        ("start: axes of head_weight", 2, len(start.get("head_weight", ()))),
    )
    check_pairs(pairs)
    return manifest
