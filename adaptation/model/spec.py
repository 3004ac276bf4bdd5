"""The description of a network: enough to build it in torch, to export it and to check stored tensors against it.

No numpy and no torch here: worker and device read this from a manifest.
"""

import hashlib
import json
from dataclasses import dataclass, fields
from typing import Literal

from acclimate.adaptation.errors import ConfigError

__all__ = ["BATCH_NORM_EPS", "SCALED_LIMIT", "NetworkSpec", "compact_spec", "expected_tensors", "spec_digest"]

BATCH_NORM_EPS = 1e-5
# Scaled inputs are clipped here, in units of source standard deviations. No working sensor comes near it, and it keeps
# every finite input finite in float32 through all layers and their squared distances.
SCALED_LIMIT = 1e4

# Fields that version 0.1 had: its digests name them at their defaults too.
_ALWAYS_NAMED = {"kind", "channels", "length", "classes", "widths", "kernels", "transform"}
_MAX_BLOCKS = 6
_MAX_SIZE = 65_536


@dataclass(frozen=True)
class NetworkSpec:
    """Describe one classifier.

    Args:
        kind: ``conv1d`` (windows in time) or ``mlp`` (a window is flattened; the form for tabular rows, length 1).
        channels: Channels of a window, C.
        length: Samples of a window, L; 1 for tabular rows.
        classes: Number of classes, K, at least 2.
        widths: Channels after each block; one BatchNorm per block.
        kernels: Odd kernel size of each block of ``conv1d``; empty for ``mlp``.
        transform: Applied to raw values before scaling: ``none``, or ``signedlog`` = sign(x) * log(1 + abs(x)).

    Raises:
        ConfigError: A value is out of range or the fields do not fit each other.

    >>> NetworkSpec("conv1d", channels=3, length=104, classes=4, widths=(48, 48), kernels=(7, 5)).features
    48
    """

    kind: Literal["conv1d", "mlp"]
    channels: int
    length: int
    classes: int
    widths: tuple[int, ...]
    kernels: tuple[int, ...] = ()
    transform: Literal["none", "signedlog"] = "none"

    def __post_init__(self) -> None:
        if self.kind not in ("conv1d", "mlp"):
            raise ConfigError(f"network kind: expected conv1d or mlp, got {self.kind!r}")
        if self.transform not in ("none", "signedlog"):
            raise ConfigError(f"transform: expected none or signedlog, got {self.transform!r}")
        for name, least in (("channels", 1), ("length", 1), ("classes", 2)):
            _check_size(name, getattr(self, name), least)
        if not 1 <= len(self.widths) <= _MAX_BLOCKS:
            raise ConfigError(f"widths: expected 1 to {_MAX_BLOCKS} blocks, got {len(self.widths)}")
        for width in self.widths:
            _check_size("widths", width, 1)
        if self.kind == "mlp" and self.kernels:
            raise ConfigError(f"kernels: an mlp has none, got {self.kernels}")
        if self.kind == "conv1d":
            self._check_convolutions()

    def _check_convolutions(self) -> None:
        if len(self.kernels) != len(self.widths):
            raise ConfigError(f"kernels: expected one per block ({len(self.widths)}), got {len(self.kernels)}")
        for kernel in self.kernels:
            _check_size("kernels", kernel, 1)
            if kernel % 2 == 0:
                raise ConfigError(f"kernels: expected odd sizes, got {kernel}")
        if self.length >> len(self.widths) < 1:
            raise ConfigError(
                f"length {self.length} is too short for {len(self.widths)} blocks that each halve it; "
                f"use fewer blocks, or an mlp"
            )

    @property
    def layers(self) -> int:
        """Number of BatchNorm layers."""
        return len(self.widths)

    @property
    def features(self) -> int:
        """Inputs of the head, F."""
        return self.widths[-1]

    @property
    def adaptable(self) -> bool:
        """Say whether each BatchNorm sees a time axis, so that statistics of a single window exist."""
        return self.kind == "conv1d"


def compact_spec(
    channels: int, length: int, classes: int, transform: Literal["none", "signedlog"] = "none", width: int = 48
) -> NetworkSpec:
    """Return the standard small network for windows of this shape.

    Three convolution blocks (fewer for very short windows), or two MLP blocks where the length is 1.

    >>> compact_spec(3, 104, 4).kernels
    (7, 5, 3)
    >>> compact_spec(128, 1, 6).kind
    'mlp'
    """
    if length == 1:
        return NetworkSpec("mlp", channels, length, classes, (width, width), (), transform)
    blocks = min(3, max(1, length.bit_length() - 1))
    return NetworkSpec("conv1d", channels, length, classes, (width,) * blocks, (7, 5, 3)[:blocks], transform)


def expected_tensors(spec: NetworkSpec) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor of the state dict, in its order; all of them are float32.

    torch's ``num_batches_tracked`` counters are left out: with a fixed momentum nothing reads them.

    >>> expected_tensors(NetworkSpec("mlp", 2, 1, 3, (4,)))["blocks.0.map.weight"]
    (4, 2)
    """
    shapes: dict[str, tuple[int, ...]] = {"scaling.mean": (spec.channels,), "scaling.std": (spec.channels,)}
    inputs = spec.channels if spec.kind == "conv1d" else spec.channels * spec.length
    for index, width in enumerate(spec.widths):
        kernel = (spec.kernels[index],) if spec.kind == "conv1d" else ()
        shapes[f"blocks.{index}.map.weight"] = (width, inputs, *kernel)
        for name in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"blocks.{index}.norm.{name}"] = (width,)
        inputs = width
    shapes["head.weight"] = (spec.classes, spec.features)
    shapes["head.bias"] = (spec.classes,)
    return shapes


def spec_digest(spec: NetworkSpec) -> str:
    """Return the SHA-256 (hex) that names this architecture: equal specs, and only those, have equal digests.

    A field that comes later is left out at its default: what was made for a network still fits it.
    """
    values = [(each.name, getattr(spec, each.name), each.default) for each in fields(spec)]
    named = {name: value for name, value, default in values if name in _ALWAYS_NAMED or value != default}
    text = json.dumps(named, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _check_size(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MAX_SIZE:
        raise ConfigError(f"{name}: expected a whole number from {least} to {_MAX_SIZE}, got {value!r}")
