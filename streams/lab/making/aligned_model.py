"""Make a bundle of kind ``cta`` from a source bundle and recordings, and make from it what adapts."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from acclimate.adaptation.alignment.align import Progress, align
from acclimate.adaptation.alignment.aligned import Aligned, AlignmentSettings, as_tensors, parts_of
from acclimate.adaptation.data.dataset import Dataset
from acclimate.adaptation.errors import ConfigError, ContractError
from acclimate.adaptation.method import SourceContext, State
from acclimate.adaptation.methods.cta import Cta
from acclimate.adaptation.model.nets import from_tensors
from acclimate.adaptation.model.robust import spread_rows
from acclimate.adaptation.model.train import default_epochs
from acclimate.registry.bundles.aligned_bundle import (
    AlignedBundle,
    AlignedCompatibility,
    AlignedFile,
    aligned_manifest_bytes,
    write_aligned_bundle,
)
from acclimate.registry.bundles.manifest import Card
from acclimate.registry.bundles.parts import file_entries
from acclimate.registry.bundles.source_bundle import Bundle
from acclimate.registry.bundles.tensor_file import write_tensors
from acclimate.streams.lab.making.bundle_fit import check_fit
from acclimate.streams.lab.making.checkpoint import checkpoint_path, keep_checkpoint, read_checkpoint, recordings_digest
from acclimate.streams.lab.making.source_context import source_context

__all__ = ["aligned_of", "make_aligned_bundle"]

_CANARY_WINDOWS = 64
_CANARY_TOLERANCE = 1e-4
_FIGURES = {  # the figures of an aligned encoder, and their names in the card
    "ssl_mean": "ssl_mean",
    "ssl_std": "ssl_std",
    "matched": "matched_cosine",
    "mismatched": "mismatched_cosine",
}


def make_aligned_bundle(
    dataset: Dataset,
    source: Bundle,
    settings: AlignmentSettings,
    folder: Path,
    seed: int,
    clock: Callable[[], float],
    *,
    epochs: int | None = None,
    progress: Progress | None = None,
    force: bool = False,
) -> AlignedBundle:
    """Align a second encoder with a source bundle and write its bundle; minutes, which a kill does not undo.

    Args:
        dataset: Recordings; their source is learned from, and channels and classes must be the bundle's.
        source: The classifier's bundle; it stays as it is.
        settings: The settings of the alignment.
        folder: The folder of the new bundle; it must not exist.
        seed: The seed for everything random.
        clock: Gives seconds, for the cost in the card.
        epochs: The epochs of each stage; they follow from the size of the source when not given.
        progress: Called after every epoch.
        force: Begin anew where a checkpoint of another training lies.

    Raises:
        ConfigError: The data do not fit the bundle, the folder exists, or the checkpoint of another training is there.
        DataError: Training leads to numbers that are not finite.
    """
    check_fit(dataset, source, folder)
    epochs = default_epochs(len(dataset.source)) if epochs is None else epochs
    windows, labels = (torch.from_numpy(each) for each in (dataset.source.windows, dataset.source.labels))
    model = from_tensors(source.spec, source.tensors)
    context = source_context(model, dataset.source.windows, dataset.source.labels, seed)
    unsafe = dataset.unsafe_augmentations
    bound = {
        "source": source.digest,
        "recordings": recordings_digest(dataset.source),
        "kind": "cta",
        "settings": asdict(settings),
        "unsafe": list(unsafe),
        "seed": seed,
        "epochs": epochs,
    }
    path, started = checkpoint_path(folder), clock()
    state, spent = read_checkpoint(path, bound, force)

    def keep(state: State) -> None:
        keep_checkpoint(path, state, bound, spent + clock() - started)

    aligned = align(context, labels, settings, epochs, unsafe, progress, state, keep)
    seconds = round(spent + clock() - started, 1)
    shown = windows[spread_rows(np.arange(len(windows)), _CANARY_WINDOWS)]
    tensors = {name: value.numpy() for name, value in as_tensors(aligned).items()}
    parts: dict[AlignedFile, bytes] = {
        "aligned.safetensors": write_tensors(tensors),
        "canary.safetensors": write_tensors(
            {"windows": shown.numpy(), "probabilities": _answers(context, aligned, shown).numpy()}
        ),
    }
    card: Card = {
        "data": dataset.name,
        **{f"selection_{name}": value for name, value in dataset.selection.items()},
        "windows": len(dataset.source),
        "source_augmentation": source.manifest.training.get("augmentation"),
        "seed": seed,
        "epochs": epochs,
        **{told: getattr(aligned, name) for name, told in _FIGURES.items()},
        "seconds": seconds,
    }
    manifest = aligned_manifest_bytes(
        asdict(settings),
        aligned.unsafe,
        AlignedCompatibility(source_sha256=source.digest, network_sha256=source.manifest.compatibility.network_sha256),
        card,
        {name: value.shape for name, value in tensors.items()},
        file_entries(parts),
    )
    written = write_aligned_bundle(folder, manifest, parts)
    path.unlink(missing_ok=True)
    return written


def aligned_of(bundle: AlignedBundle, source: Bundle) -> Aligned:
    """Return what adapts, after the canary has been answered as when it was made.

    Raises:
        ContractError: It was made for another source bundle, or answers the canary otherwise.
    """
    bundle.check_source(source.digest, source.spec)
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in bundle.tensors.items()}
    card, manifest = bundle.manifest.card, bundle.manifest
    try:
        settings = AlignmentSettings(**manifest.settings)  # type: ignore[arg-type]
        figures = {name: float(card[told] or 0.0) for name, told in _FIGURES.items()}
    except (TypeError, KeyError, ValueError, ConfigError) as error:
        raise ContractError(f"manifest.json: settings or card do not fit this code: {error}") from error
    encoder, head, projector = parts_of(tensors)
    aligned = Aligned(settings, encoder, head, projector, manifest.unsafe_augmentations, **figures)
    windows = torch.from_numpy(np.array(bundle.canary["windows"]))
    labels = torch.zeros(len(windows), dtype=torch.int64)  # not looked at
    context = SourceContext(from_tensors(source.spec, source.tensors), windows, labels)
    found = _answers(context, aligned, windows).numpy()
    if not np.abs(found - bundle.canary["probabilities"]).max() <= _CANARY_TOLERANCE:
        raise ContractError("canary: probabilities are not what the encoders gave when it was made, on this machine")
    return aligned


def _answers(context: SourceContext, aligned: Aligned, windows: Tensor) -> Tensor:
    """Return the answers before any adaptation."""
    method = Cta(context, aligned, steps=0)
    return method.adapt_batch(method.reset(), windows)[1].probabilities
