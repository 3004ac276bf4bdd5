"""Make a generator bundle from a source bundle and recordings; a kill does not undo the work (`checkpoint`)."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch

from acclimate.adaptation.data.corruptions import TUNING, TUNING_MIXTURES, applicable
from acclimate.adaptation.data.dataset import Dataset
from acclimate.adaptation.generators.affine_gradient import discrepancy_weight, join, source_features
from acclimate.adaptation.generators.engine import Kind, make_engine
from acclimate.adaptation.generators.episodes import CLEAN_SHARE, Recordings
from acclimate.adaptation.generators.export_generalizeformer import export_generalizeformer
from acclimate.adaptation.generators.export_gradient import export_gradient
from acclimate.adaptation.generators.export_mgg import export_mgg
from acclimate.adaptation.generators.generator import Generator, Settings
from acclimate.adaptation.generators.meta_train import (
    ALONE,
    MetaState,
    MetaTrained,
    Progress,
    Share,
    default_updates,
    meta_train,
)
from acclimate.adaptation.generators.mgg import MggSettings, moments_start
from acclimate.adaptation.generators.valid_range import LEAST_WINDOWS
from acclimate.adaptation.model.nets import from_tensors
from acclimate.adaptation.model.network import Network
from acclimate.adaptation.model.robust import spread_rows
from acclimate.registry.bundles.generator_bundle import (
    GeneratorBundle,
    GeneratorCompatibility,
    GeneratorFile,
    generator_manifest_bytes,
    write_generator_bundle,
)
from acclimate.registry.bundles.manifest import Card
from acclimate.registry.bundles.parts import file_entries
from acclimate.registry.bundles.source_bundle import Bundle
from acclimate.registry.bundles.tensor_file import write_tensors
from acclimate.streams.lab.making.bundle_fit import check_fit
from acclimate.streams.lab.making.checkpoint import checkpoint_path, keep_checkpoint, read_checkpoint, recordings_digest

__all__ = ["GeneratorModel", "make_generator_bundle"]

_CANARY_WINDOWS = LEAST_WINDOWS
_TIMED_BATCHES = 20

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class GeneratorModel:
    """A generator and the bundle that was written from it.

    Attributes:
        bundle: The bundle, as read back.
        trained: The generator, with checks and figures.
        resumed_at: The update of the checkpoint that the run went on from; 0 for a run from the start.
    """

    bundle: GeneratorBundle
    trained: MetaTrained
    resumed_at: int


def make_generator_bundle(
    dataset: Dataset,
    source: Bundle,
    settings: Settings,
    folder: Path,
    seed: int,
    clock: Callable[[], float],
    *,
    updates: int | None = None,
    device: str = "cpu",
    share: Share = ALONE,
    progress: Progress | None = None,
    force: bool = False,
) -> GeneratorModel | None:
    """Meta-train a generator for a source bundle and write its bundle; None in every process but the first.

    Args:
        dataset: Recordings; their source is learned from, and channels and classes must be the bundle's.
        source: The bundle of the model that is to be adapted.
        settings: The settings of the generator; their class says which kind.
        folder: The folder of the new bundle; it must not exist.
        seed: The seed for everything random.
        clock: Gives seconds, for the cost in the card.
        updates: The largest number of updates.
        device: The device that torch trains on.
        share: The part of this process, where several train together.
        progress: Called after every update.
        force: Begin anew where a checkpoint of another training lies.

    Raises:
        ConfigError: The data do not fit the bundle, the folder exists, or the checkpoint of another training is there.
        DataError: The source is too small, or training leads to numbers that are not finite.
        ContractError: The exported graphs differ from the generator.
    """
    check_fit(dataset, source, folder)
    updates = default_updates(settings) if updates is None else updates
    model = from_tensors(source.spec, source.tensors)
    recordings = Recordings(dataset.source.windows, dataset.source.labels, dataset.source.groups)
    bound = _binding(dataset, source, settings, seed, updates)
    path, started = checkpoint_path(folder), clock()
    state, spent = read_checkpoint(path, bound, force)
    resumed_at = 0 if state is None else int(state["update"])

    def keep(state: MetaState) -> None:
        if share.rank == 0:
            keep_checkpoint(path, state, bound, spent + clock() - started)

    trained = meta_train(model, recordings, settings, seed, updates, state, keep, progress, device, share)
    if share.rank != 0:
        return None
    cost: Card = {"meta_training_seconds": round(spent + clock() - started, 1), "processes": share.of, "device": device}
    bundle = _write(dataset, source, trained, folder, seed, cost, clock)
    path.unlink(missing_ok=True)
    return GeneratorModel(bundle, trained, resumed_at)


def _binding(dataset: Dataset, source: Bundle, settings: Settings, seed: int, updates: int) -> dict[str, Any]:
    """Return what the result depends on, as JSON gives it back."""
    return {
        "source": source.digest,
        "recordings": recordings_digest(dataset.source),
        "kind": _kind(settings),
        "settings": asdict(settings),
        "seed": seed,
        "updates": updates,
    }


def _write(
    dataset: Dataset,
    source: Bundle,
    trained: MetaTrained,
    folder: Path,
    seed: int,
    cost: Card,
    clock: Callable[[], float],
) -> GeneratorBundle:
    generator, kind = trained.generator, _kind(trained.generator.settings)
    gradient, graph, start = _exported(generator, source, dataset.source.windows)
    rows = spread_rows(np.arange(len(dataset.source)), _CANARY_WINDOWS)
    windows = dataset.source.windows[np.resize(rows, _CANARY_WINDOWS)]
    engine = make_engine(kind, gradient, graph, start, generator.valid_range)
    made, times = engine.first(windows), []
    for _ in range(_TIMED_BATCHES):
        before = clock()
        engine.first(windows)
        times.append(clock() - before)
    expected = {name: getattr(made, name) for name in ("probabilities", "coordinates", "head_weight")}
    canary = {"windows": windows, **expected}
    weights = {name: value.numpy() for name, value in generator.weights.items()}
    parts: dict[GeneratorFile, bytes] = {
        "generator.safetensors": write_tensors(weights),
        "start.safetensors": write_tensors(start),
        "canary.safetensors": write_tensors(canary),
        "gradient.onnx": gradient,
        "generator.onnx": graph,
    }
    card = _card(dataset, source, trained, seed)
    card |= cost
    card |= {
        "milliseconds_per_batch": round(1000 * float(np.median(times)), 3),
        "batch_windows": len(windows),
        "generator_graph_bytes": len(graph),
        "gradient_graph_bytes": len(gradient),
        "weights": sum(value.size for value in weights.values()),
        "state_bytes": sum(value.nbytes for value in start.values()) if kind == "mgg" else 0,
        "onnxruntime": ort.__version__,
    }
    contract = source.manifest.compatibility
    manifest = generator_manifest_bytes(
        kind,
        asdict(generator.settings),
        GeneratorCompatibility(
            source_sha256=source.digest,
            network_sha256="any" if kind == "mgg" else contract.network_sha256,
            layer_names=contract.layer_names,
            layer_widths=contract.layer_widths,
        ),
        generator.valid_range,
        card,
        {
            "weights": {name: value.shape for name, value in weights.items()},
            "start": {name: value.shape for name, value in start.items()},
        },
        file_entries(parts),
    )
    return write_generator_bundle(folder, manifest, parts)


def _exported(generator: Generator, source: Bundle, windows: FloatArray) -> tuple[bytes, bytes, dict[str, FloatArray]]:
    """Return both graphs for a source, and what a device starts from; all its windows (n, C, L) tell its features."""
    spec, tensors = source.spec, source.tensors
    network = Network(from_tensors(spec, tensors))
    features = {
        name: value.numpy() for name, value in vars(source_features(network, torch.from_numpy(windows))).items()
    }
    affine = {name: network.tensors[name] for name in network.affine}
    start: dict[str, FloatArray] = {"coordinates": join(affine).numpy(), "head_weight": tensors["head.weight"]}
    if not isinstance(generator.settings, MggSettings):
        graph = export_generalizeformer(generator.generalizeformer(), tensors, spec, features)
        return export_gradient(tensors, spec, features, 0.0), graph, start
    mgg, count = generator.mgg(), len(start["coordinates"])
    learned = {**moments_start((count,)), **mgg.start(count)}
    start |= {name: value.numpy().astype(np.float32) for name, value in learned.items()}
    gradient = export_gradient(tensors, spec, features, discrepancy_weight(spec.classes))
    return gradient, export_mgg(mgg, count), start


def _kind(settings: Settings) -> Kind:
    return "mgg" if isinstance(settings, MggSettings) else "generalizeformer"


def _card(dataset: Dataset, source: Bundle, trained: MetaTrained, seed: int) -> Card:
    kinds = [kind for kind in (*TUNING, *TUNING_MIXTURES) if applicable(kind, dataset.channels, dataset.length)]
    return {
        "data": dataset.name,
        **{f"selection_{name}": value for name, value in dataset.selection.items()},
        "windows": len(dataset.source),
        "source_augmentation": source.manifest.training.get("augmentation"),
        "shifts": ",".join(kinds),
        "clean_share": CLEAN_SHARE,
        "seed": seed,
        "updates": trained.updates,
        "best_update": trained.best.update,
        "held_out_loss": trained.best.loss,
        "held_out_source_loss": trained.best.source_loss,
        "held_out_accuracy": trained.best.accuracy,
        "held_out_source_accuracy": trained.best.source_accuracy,
        "unshifted_accuracy": trained.unshifted.accuracy,
        "unshifted_source_accuracy": trained.unshifted.source_accuracy,
        "step_share": trained.generator.step_share,
        "helps": trained.helps,
    }
