"""The manifest of a bundle: everything about a model that is not a number array, and the digests of its files.

Its exact bytes are what a digest names and a signature will cover, so there is one way to write it: canonical JSON. A
manifest in any other form (repeated keys, other spacing) is refused. Its checksum finds damage; it proves no origin.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from acclimate.adaptation.engine.engine import CODE_CONTRACT_VERSION
from acclimate.adaptation.errors import ConfigError, ContractError
from acclimate.adaptation.lean.lean_settings import LeanSettings
from acclimate.adaptation.model.spec import SCALED_LIMIT, NetworkSpec, spec_digest
from acclimate.registry.canonical import (
    Digest,
    Extensible,
    Name,
    Signed,
    added,
    canonical_text,
    read_canonical,
    refusing,
)

__all__ = [
    "MANIFEST_FILE",
    "MAX_MANIFEST_BYTES",
    "PART_FILES",
    "SIGNATURE_FILE",
    "Card",
    "Compatibility",
    "FileEntry",
    "Manifest",
    "PartEntries",
    "PartFile",
    "Sealed",
    "Shape",
    "check_pairs",
    "layer_names",
    "manifest_bytes",
    "parse_manifest",
    "sealed",
    "unsealed",
]

PartFile = Literal["weights.safetensors", "reference.safetensors", "canary.safetensors", "source.onnx", "adapted.onnx"]
PART_FILES: tuple[PartFile, ...] = (
    "weights.safetensors",
    "reference.safetensors",
    "canary.safetensors",
    "source.onnx",
    "adapted.onnx",
)

MANIFEST_FILE, SIGNATURE_FILE = "manifest.json", "manifest.sig"
MAX_MANIFEST_BYTES = 1024**2

Shape = tuple[Annotated[int, Field(ge=0, le=10_000_000)], ...]
Card = dict[str, str | bool | int | float | None]  # figures and settings, for people
_Size = Annotated[int, Field(ge=1, le=65_536)]
_MAX_CARD_ENTRIES = 256


class FileEntry(Extensible):
    """Digest and size of one file."""

    sha256: Digest
    size_bytes: Annotated[int, Field(ge=1)]


# One name in one folder: no separator, no leading dot. A manifest may list files that only newer versions open, and a
# release lists 16 files of a bundle at most, manifest and signature among them.
PartEntries = Annotated[
    dict[Annotated[str, Field(pattern=r"^[a-z_]{1,40}\.(safetensors|onnx)$")], FileEntry], Field(max_length=14)
]


class Network(Extensible):
    """The fields of `acclimate.adaptation.model.spec.NetworkSpec`."""

    kind: Literal["conv1d", "mlp"]
    channels: _Size
    length: _Size
    classes: _Size
    widths: tuple[_Size, ...]
    kernels: tuple[_Size, ...]
    transform: Literal["none", "signedlog"]


class Scaling(Extensible):
    """The scaling of raw values: ``scaling.mean`` and ``scaling.std`` of the weights, clipped to the limit."""

    limit: float


class Lean(Extensible):
    """The fields of `acclimate.adaptation.lean.lean_settings.LeanSettings`."""

    tau: float
    lam: float
    layers: tuple[bool, ...]
    direction: Literal["target_on_large", "source_on_large"]
    normalize_by_channels: bool
    threshold: float


class Compatibility(Extensible):
    """The contract of this model: an adapter for it must have been made for these layers."""

    network_sha256: Digest
    layer_names: tuple[Name, ...]
    layer_widths: tuple[_Size, ...]


class Sealed(Signed):
    """Base of manifests: their version of the code, and a checksum, the SHA-256 of the canonical JSON without it."""

    code_contract_version: Annotated[int, Field(ge=1)] = CODE_CONTRACT_VERSION
    checksum: Digest = "0" * 64


_Manifest = TypeVar("_Manifest", bound=Sealed)


class Manifest(Sealed):
    """Describe one bundle.

    Attributes:
        sampling_rate_hz: The rate of the windows trained on; windows of another rate are refused. None takes any.
        step_samples: Samples from the start of one of these windows to the start of the next; None where unknown.
    """

    schema_version: Literal[1] = 1
    kind: Literal["source"] = "source"
    network: Network
    channel_names: tuple[Name, ...]
    class_names: tuple[Name, ...]
    scaling: Scaling = Scaling(limit=SCALED_LIMIT)
    lean: Lean
    compatibility: Compatibility
    training: Annotated[dict[Name, str | bool | int | float | None], Field(max_length=_MAX_CARD_ENTRIES)]
    files: PartEntries
    sampling_rate_hz: Annotated[float, Field(gt=0, le=1e9)] | None = added(None)
    step_samples: Annotated[int, Field(ge=1, le=2**31)] | None = added(None)

    @property
    def spec(self) -> NetworkSpec:
        """The network, as the rest of the code knows it."""
        return NetworkSpec(**self.network.model_dump())

    @property
    def settings(self) -> LeanSettings:
        """The settings of LeanTTA."""
        return LeanSettings(**self.lean.model_dump())


def layer_names(spec: NetworkSpec) -> tuple[str, ...]:
    """Return the names of the BatchNorm layers as the state dict has them.

    >>> layer_names(NetworkSpec("mlp", 2, 1, 3, (4,)))
    ('blocks.0.norm',)
    """
    return tuple(f"blocks.{index}.norm" for index in range(spec.layers))


def manifest_bytes(
    spec: NetworkSpec,
    settings: LeanSettings,
    channel_names: tuple[str, ...],
    class_names: tuple[str, ...],
    training: dict[str, str | bool | int | float | None],
    files: dict[str, FileEntry],
    sampling_rate_hz: float | None = None,
    step_samples: int | None = None,
) -> bytes:
    """Return the exact bytes of the manifest of these parts.

    Raises:
        ContractError: A value does not fit; reading would refuse it.
    """
    with refusing("manifest.json"):
        manifest = Manifest(
            network=Network(**asdict(spec)),
            channel_names=channel_names,
            class_names=class_names,
            lean=Lean(**asdict(settings)),
            compatibility=Compatibility(
                network_sha256=spec_digest(spec), layer_names=layer_names(spec), layer_widths=spec.widths
            ),
            training=training,
            files=files,
            sampling_rate_hz=sampling_rate_hz,
            step_samples=step_samples,
        )
    raw = sealed(manifest)
    parse_manifest(raw)
    return raw


def parse_manifest(raw: bytes) -> Manifest:
    """Return the manifest with these bytes, checked in itself; its files are not looked at.

    Raises:
        ContractError: The manifest is damaged, not canonical, newer than this code or contradicts itself.
    """
    manifest = unsealed(Manifest, raw)
    _check_consistency(manifest)
    return manifest


def _check_consistency(manifest: Manifest) -> None:
    try:
        spec, settings = manifest.spec, manifest.settings
    except ConfigError as error:
        raise ContractError(f"manifest.json: {error}") from error
    contract = manifest.compatibility
    pairs = (
        ("number of channel names", spec.channels, len(set(manifest.channel_names))),
        ("number of class names", spec.classes, len(set(manifest.class_names))),
        ("lean layers", spec.layers, len(settings.layers)),
        ("scaling limit", SCALED_LIMIT, manifest.scaling.limit),
        ("compatibility network_sha256", spec_digest(spec), contract.network_sha256),
        ("compatibility layer_names", layer_names(spec), contract.layer_names),
        ("compatibility layer_widths", spec.widths, contract.layer_widths),
        ("files", sorted(PART_FILES), sorted(set(PART_FILES) & set(manifest.files))),
    )
    check_pairs(pairs)
    for names in (manifest.channel_names, manifest.class_names):
        if len(set(names)) != len(names):
            raise ContractError(f"manifest.json: expected distinct names, found {list(names)}")


def sealed(manifest: Sealed) -> bytes:
    """Return the exact bytes of a manifest, with its checksum filled in."""
    values = manifest.model_dump(mode="json")
    return canonical_text(values | {"checksum": _checksum(values)})


def unsealed(kind: type[_Manifest], raw: bytes) -> _Manifest:
    """Return the manifest of this kind with these bytes; the caller checks that its parts fit each other.

    Raises:
        ContractError: The manifest is damaged, not canonical or newer than this code.
    """
    manifest, values = read_canonical(kind, raw, "manifest.json")
    if _checksum(values) != manifest.checksum:
        raise ContractError(
            f"manifest.json: expected checksum {_checksum(values)}, found {manifest.checksum}; the file is damaged"
        )
    if manifest.code_contract_version > CODE_CONTRACT_VERSION:
        raise ContractError(
            f"manifest.json: expected code contract version {CODE_CONTRACT_VERSION} or older, found "
            f"{manifest.code_contract_version}; update acclimate to use this bundle"
        )
    return manifest


def check_pairs(pairs: Iterable[tuple[str, Any, Any]]) -> None:
    """Compare what a manifest should say with what it says: (what, expected, found).

    Raises:
        ContractError: Two differ.
    """
    for what, expected, found in pairs:
        if expected != found:
            raise ContractError(f"manifest.json: {what}: expected {expected}, found {found}")


def _checksum(values: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_text(values | {"checksum": ""})).hexdigest()
