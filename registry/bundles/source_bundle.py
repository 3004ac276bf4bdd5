"""A bundle: one model version as a folder that can be checked before it is used.

    manifest.json           what it is, and the digest of every other file; its own SHA-256 names the bundle
    manifest.sig            signature over the exact bytes of the manifest (may be missing; not looked at here)
    weights.safetensors     state dict: weights, BatchNorm source statistics, scaling constants
    reference.safetensors   calibration of the shift magnitude
    canary.safetensors      windows and the outputs expected for them
    source.onnx             source model and shift measures
    adapted.onnx            model adapted by LeanTTA, per-window parameters as inputs

Reading needs neither torch nor onnx, follows no links, bounds every size before parsing and runs nothing from the files
but the two graphs. Writing is all or nothing.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from acclimate.adaptation.engine.engine import ADAPTED_OUTPUTS, SOURCE_OUTPUTS, Engine, Outputs, engine_parameters
from acclimate.adaptation.errors import ConfigError, ContractError
from acclimate.adaptation.lean.lean_settings import LeanSettings
from acclimate.adaptation.lean.shift_calibration import ShiftCalibration
from acclimate.adaptation.model.spec import NetworkSpec, expected_tensors
from acclimate.registry.bundles.manifest import PART_FILES, Card, Manifest, PartFile, manifest_bytes, parse_manifest
from acclimate.registry.bundles.parts import file_entries, read_parts, write_parts
from acclimate.registry.bundles.tensor_file import write_tensors

if TYPE_CHECKING:
    from acclimate.adaptation.model.nets import Classifier

__all__ = ["Bundle", "build_bundle", "read_bundle", "write_bundle"]

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read and checked.

    Args:
        manifest: The manifest.
        digest: The SHA-256 (hex) of the manifest's exact bytes, which covers all files.
        tensors: The state dict, see `acclimate.adaptation.model.spec.expected_tensors`.
        reference: The calibration arrays, one per name of ``reference.safetensors``.
        canary: ``windows`` (k, C, L) and the fields of `acclimate.adaptation.engine.engine.Outputs` expected for them.
        source_graph, adapted_graph: The two ONNX files.
    """

    manifest: Manifest
    digest: str
    tensors: Mapping[str, FloatArray]
    reference: Mapping[str, FloatArray]
    canary: Mapping[str, FloatArray]
    source_graph: bytes
    adapted_graph: bytes

    @property
    def spec(self) -> NetworkSpec:
        """The network."""
        return self.manifest.spec

    @property
    def settings(self) -> LeanSettings:
        """The settings of LeanTTA."""
        return self.manifest.settings

    @property
    def parameters(self) -> dict[str, FloatArray]:
        """The source's parameters for the adapted graph, first axis 1."""
        return engine_parameters(self.tensors, self.spec, self.settings)

    def engine(self) -> Engine:
        """Return an engine for this model that has passed its self-test on this machine.

        Raises:
            ContractError: The graphs do not load, do not fit the manifest or miss the canary's expected outputs.
        """
        engine = Engine(self.source_graph, self.adapted_graph, self.parameters, self.settings)
        if (engine.channels, engine.length) != (self.spec.channels, self.spec.length):
            raise ContractError(
                f"source.onnx: expected windows of {self.spec.channels} x {self.spec.length}, "
                f"found {engine.channels} x {engine.length}"
            )
        engine.self_test(self.canary["windows"], self.canary)
        return engine


def read_bundle(folder: Path) -> Bundle:
    """Return the bundle in a folder.

    Raises:
        ContractError: Anything is missing, unknown, a link, too large, damaged, inconsistent or newer than this code;
            the message names file, expected and found.
    """
    parts = read_parts(folder, PART_FILES, parse_manifest)
    spec = parts.manifest.spec
    tensors = parts.tensors("weights.safetensors", expected_tensors(spec))
    reference = parts.tensors("reference.safetensors", _reference_shapes(spec))
    canary = parts.tensors("canary.safetensors", _canary_shapes(spec))
    _check_signs("weights.safetensors", tensors)
    _check_signs("reference.safetensors", reference)
    if len({len(values) for values in canary.values()}) != 1:
        raise ContractError("canary.safetensors: expected as many outputs as windows, found different numbers")
    return Bundle(
        manifest=parts.manifest,
        digest=parts.digest,
        tensors=tensors,
        reference=reference,
        canary=canary,
        source_graph=parts.contents["source.onnx"],
        adapted_graph=parts.contents["adapted.onnx"],
    )


def write_bundle(folder: Path, manifest: bytes, parts: Mapping[PartFile, bytes]) -> str:
    """Write a bundle in one step and return its digest; a crash leaves the old state or the whole bundle.

    Args:
        folder: The target; its parent is created. If it exists it must hold the identical bundle.
        manifest: The bytes from `acclimate.registry.bundles.manifest.manifest_bytes`.
        parts: The content of every other file.

    Raises:
        ContractError: The folder exists with other content, or the parts would be refused on reading.
    """
    digest = hashlib.sha256(manifest).hexdigest()
    if os.path.lexists(folder):
        if _holds(folder, digest):
            return digest
        raise ContractError(f"{folder}: expected a new folder or bundle {digest}, found something else; choose another")
    write_parts(folder, manifest, parts, check=read_bundle)
    return digest


def build_bundle(
    model: "Classifier",
    settings: LeanSettings,
    calibration: ShiftCalibration,
    channel_names: tuple[str, ...],
    class_names: tuple[str, ...],
    training: Card,
    canary_windows: FloatArray,
    folder: Path,
    sampling_rate_hz: float | None = None,
    step_samples: int | None = None,
) -> Bundle:
    """Export a trained model, record its canary outputs, write the bundle and return it as read back and self-tested.

    Needs torch and onnx.

    Args:
        model: The trained classifier in evaluation mode.
        settings: The settings of LeanTTA.
        calibration: The constants of the shift magnitude, from `acclimate.adaptation.lean.shift.calibrate`.
        channel_names, class_names: One per channel and class.
        training: The facts to keep about the training: data, selection, seed, accuracy.
        canary_windows: Some held-out source windows (k, C, L) whose outputs every engine must reproduce.
        folder: The target, see `write_bundle`.
        sampling_rate_hz, step_samples: The sampling of the training, see
            `acclimate.registry.bundles.manifest.Manifest`.

    Raises:
        ConfigError: There is no canary window.
        ContractError: The exported graphs differ from the model, or see `write_bundle`.
    """
    from acclimate.adaptation.engine.export import export_adapted, export_source
    from acclimate.adaptation.model.nets import to_tensors

    if len(canary_windows) == 0:
        raise ConfigError("canary windows: expected at least one held-out source window, got none")
    spec, tensors = model.spec, to_tensors(model)
    parts: dict[PartFile, bytes] = {
        "weights.safetensors": write_tensors(tensors),
        "reference.safetensors": write_tensors(_reference_tensors(calibration)),
        "canary.safetensors": write_tensors(_canary_tensors(model, settings, calibration, canary_windows)),
        "source.onnx": export_source(tensors, spec, calibration),
        "adapted.onnx": export_adapted(tensors, spec, settings),
    }
    entries = file_entries(parts)
    manifest = manifest_bytes(
        spec, settings, channel_names, class_names, training, entries, sampling_rate_hz, step_samples
    )
    write_bundle(folder, manifest, parts)
    bundle = read_bundle(folder)
    bundle.engine()
    return bundle


def _canary_tensors(
    model: "Classifier", settings: LeanSettings, calibration: ShiftCalibration, windows: FloatArray
) -> dict[str, FloatArray]:
    import torch

    from acclimate.adaptation.lean.leantta import adapt_batch
    from acclimate.adaptation.lean.shift import measure

    batch = torch.from_numpy(np.array(windows, dtype=np.float32))
    lean = adapt_batch(model, batch, settings)
    with torch.inference_mode():
        source: FloatArray = torch.softmax(model(batch), dim=1).numpy()
    return {
        "windows": batch.numpy(),
        "source_probabilities": source,
        "adapted_probabilities": torch.softmax(lean.logits, dim=1).numpy(),
        "distance": lean.distance.numpy(),
        "gain": lean.gain.numpy(),
        **vars(measure(model, windows, calibration)),
    }


def _canary_shapes(spec: NetworkSpec) -> dict[str, tuple[int | None, ...]]:
    sizes: dict[str, int | None] = {"n": None, "classes": spec.classes, "layers": spec.layers}
    axes: dict[str, tuple[str, ...]] = SOURCE_OUTPUTS | ADAPTED_OUTPUTS
    shapes: dict[str, tuple[int | None, ...]] = {"windows": (None, spec.channels, spec.length)}
    for field in fields(Outputs):
        graph_name = "probabilities" if field.name.endswith("probabilities") else field.name
        shapes[field.name] = tuple(sizes[axis] for axis in axes[graph_name])
    return shapes


def _reference_tensors(calibration: ShiftCalibration) -> dict[str, FloatArray]:
    tensors: dict[str, FloatArray] = {}
    for name, value in vars(calibration).items():
        tensors |= {f"{name}_{i}": part for i, part in enumerate(value)} if isinstance(value, tuple) else {name: value}
    return tensors


def _reference_shapes(spec: NetworkSpec) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for index, width in enumerate(spec.widths):
        shapes |= {f"log_variance_mean_{index}": (width,), f"log_variance_variance_{index}": (width,)}
    per_layer = (spec.layers,)
    return shapes | {
        "layer_mean_quantile": per_layer,
        "layer_variance_quantile": per_layer,
        "mean_quantile": (),
        "variance_quantile": (),
    }


def _check_signs(file: str, tensors: Mapping[str, FloatArray]) -> None:
    """Refuse divisors that are not positive and variances below zero."""
    for name, values in tensors.items():
        if any(part in name for part in ("scaling.std", "log_variance_variance_", "quantile")) and values.min() <= 0:
            raise ContractError(f"{file}: {name}: expected values above 0, found {values.min()}")
        if name.endswith("running_var") and values.min() < 0:
            raise ContractError(f"{file}: {name}: expected values of at least 0, found {values.min()}")


def _holds(folder: Path, digest: str) -> bool:
    try:
        return read_bundle(folder).digest == digest
    except ContractError:
        return False
