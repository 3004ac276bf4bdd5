"""Supervised training of the source model: the one place where labels of the source are used.

Two fits. The first leaves windows out for the accuracy that is reported and for the calibration of the shift magnitude:
whole groups where there are at least five, because the question is how the model does on a device that it never saw;
else the end of what every group shows of every class. Its scaling constants come from its training part only. The
second fit makes the model that is returned, in the same way from all windows: what was held out may be the latest that
the source shows, and where sensors drift that is worth most. What is reported is the first fit's, so it is, if
anything, too low. Hyper-parameters were chosen by held-out source accuracy; no target was looked at.

Equal arguments and an equal number of torch threads give equal weights, bit for bit; the caller's random state and
threads are left alone.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from acclimate.adaptation.data.augment import Augmentation, augment
from acclimate.adaptation.data.dataset import Dataset
from acclimate.adaptation.errors import ConfigError, DataError
from acclimate.adaptation.model.batch_norms import settle_statistics
from acclimate.adaptation.model.nets import Classifier, build
from acclimate.adaptation.model.spec import NetworkSpec, compact_spec

__all__ = [
    "Fitted",
    "Progress",
    "Trained",
    "check_source",
    "default_epochs",
    "default_spec",
    "fit",
    "hold_out",
    "predict",
    "train_source",
]

Progress = Callable[[int, int, float, float], None]  # epoch from 1, epochs of both fits, mean loss, held-out accuracy

_BATCH = 128
_LEARNING_RATE = 2e-3
_WEIGHT_DECAY = 1e-3
_MIN_EPOCH_STEPS = 24
_HELD_OUT_SHARE = 0.2
_MIN_GROUPS = 5
_MAX_CLASS_WEIGHT = 10.0


@dataclass(frozen=True, eq=False)
class Fitted:
    """One fit.

    Attributes:
        model: The network in evaluation mode, on the CPU.
        losses: Mean training loss of each epoch, in nats, classes weighted.
    """

    model: Classifier
    losses: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained source model and what is known about it.

    Attributes:
        model: The network in evaluation mode, on the CPU; trained on every window, or the measured one without a refit.
        measured_model: The first fit, which never saw the held-out windows; all figures here are its own.
        held_out: (n,) which of the given windows the measured model was not trained on.
        held_out_by: ``groups`` (whole groups) or ``tail`` (the end of every group's share of every class).
        held_out_groups: Names of the groups that were held out; empty for ``tail``.
        accuracy: Share of held-out windows that the measured model classifies right, 0 to 1.
        recalls: The same for each class alone; None where the held-out part has no window of it.
        losses: Mean training loss of each epoch of the returned model, in nats, classes weighted.
        seed: Seed that was used.
        threads: Torch threads during training; another number may round differently.
        augmentation: The augmentation of both fits; None without.
    """

    model: Classifier
    measured_model: Classifier
    held_out: NDArray[np.bool_]
    held_out_by: str
    held_out_groups: tuple[str, ...]
    accuracy: float
    recalls: tuple[float | None, ...]
    losses: tuple[float, ...]
    seed: int
    threads: int
    augmentation: Augmentation | None

    @property
    def refitted(self) -> bool:
        """Say whether the returned model was trained on the held-out windows too."""
        return self.model is not self.measured_model


def default_epochs(windows: int) -> int:
    """Give the passes after which the loss on sources of this size had settled: 10, and up to 30 for small ones.

    >>> default_epochs(6000), default_epochs(1067), default_epochs(100)
    (10, 24, 30)
    """
    return min(30, max(10, math.ceil(25_000 / max(1, windows))))


def default_spec(dataset: Dataset) -> NetworkSpec:
    """Give the compact network for a data set: convolutions in time, or an MLP of two layers for rows without time."""
    width = 96 if dataset.length == 1 else 48
    return compact_spec(dataset.channels, dataset.length, dataset.classes, dataset.transform, width)


def hold_out(
    labels: NDArray[np.int64], groups: NDArray[np.str_], seed: int
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Choose the windows that are not trained on, (n,), and the names of whole groups that are held out.

    With five or more groups a fifth of them, drawn by ``seed`` so that the rest still shows every class; else, or where
    no such draw exists, the last fifth of what each group shows of each class, in stored order.

    >>> mask, names = hold_out(np.array([0, 0, 0, 0, 0, 1, 1, 1]), np.array(["a"] * 8), seed=0)
    >>> mask.astype(int).tolist(), names
    ([0, 0, 0, 0, 1, 0, 0, 1], ())
    """
    names = np.unique(groups)
    classes = np.unique(labels).size
    if names.size >= _MIN_GROUPS:
        rng = np.random.default_rng([seed, 3])
        for _ in range(50):
            chosen = rng.permutation(names)[: max(1, round(_HELD_OUT_SHARE * names.size))]
            mask = np.isin(groups, chosen)
            if np.unique(labels[~mask]).size == classes:
                return mask, tuple(sorted(str(name) for name in chosen))
    mask = np.zeros(labels.shape, dtype=np.bool_)
    for name in names:
        for label in np.unique(labels[groups == name]):
            rows = np.flatnonzero((groups == name) & (labels == label))
            if rows.size > 1:
                mask[rows[-max(1, int(_HELD_OUT_SHARE * rows.size)) :]] = True
    return mask, ()


def train_source(
    windows: NDArray[np.float32],
    labels: NDArray[np.int64],
    groups: NDArray[np.str_],
    spec: NetworkSpec,
    seed: int,
    epochs: int | None = None,
    progress: Progress | None = None,
    augmentation: Augmentation | None = None,
    refit: bool = True,
) -> Trained:
    """Train a classifier on raw source windows: measure one on held-out windows, then return one trained on all.

    Args:
        windows: (n, channels, length), raw and finite.
        labels: (n,) in 0..classes-1, each class present.
        groups: (n,) device names, in stream order.
        spec: Network to train.
        seed: Decides the held-out groups, initial weights, the order of batches and every draw of the augmentation.
        epochs: Passes of each fit, at least 1; see `default_epochs`.
        progress: A function called after each epoch of both fits; the accuracy stays the first fit's in the second.
        augmentation: Applied to training batches, see `acclimate.adaptation.data.augment`; None trains on windows as
            recorded.
        refit: Whether to fit again on all windows; without, the measured model is returned, in half the time.

    Raises:
        ConfigError: Arguments do not fit each other.
        DataError: The windows make no model: a class is missing, or training leads to numbers that are not finite.
    """
    epochs = default_epochs(len(windows)) if epochs is None else epochs
    if epochs < 1:
        raise ConfigError(f"expected at least 1 epoch, got {epochs}")
    check_source(windows, labels, groups, spec)
    held_out, names = hold_out(labels, groups, seed)
    counts = np.bincount(labels[~held_out], minlength=spec.classes)
    if held_out.sum() == 0 or counts.min() == 0:
        raise DataError(
            f"the source is too small to hold out a test part: windows per class left to train on {counts.tolist()}, "
            f"held out {int(held_out.sum())}; expected at least two windows of each class",
            "too_few_windows",
        )
    of = 2 * epochs if refit else epochs
    test_windows, test_labels = windows[held_out], labels[held_out]

    def first_epoch(epoch: int, loss: float, model: Classifier) -> None:
        if progress is not None:
            progress(epoch, of, loss, _accuracy(model, test_windows, test_labels))

    first = fit(windows[~held_out], labels[~held_out], spec, seed, epochs, augmentation, first_epoch)
    right = predict(first.model, test_windows).argmax(axis=1) == test_labels
    accuracy = float(right.mean())

    def second_epoch(epoch: int, loss: float, model: Classifier) -> None:
        if progress is not None:
            progress(epochs + epoch, of, loss, accuracy)

    final = fit(windows, labels, spec, seed, epochs, augmentation, second_epoch) if refit else first
    return Trained(
        model=final.model,
        measured_model=first.model,
        held_out=held_out,
        held_out_by="groups" if names else "tail",
        held_out_groups=names,
        accuracy=accuracy,
        recalls=tuple(
            float(right[test_labels == label].mean()) if (test_labels == label).any() else None
            for label in range(spec.classes)
        ),
        losses=final.losses,
        seed=seed,
        threads=torch.get_num_threads(),
        augmentation=augmentation,
    )


def check_source(
    windows: NDArray[np.float32], labels: NDArray[np.int64], groups: NDArray[np.str_], spec: NetworkSpec
) -> None:
    """Refuse arrays that do not belong together or do not fit the network.

    Raises:
        ConfigError: Shapes do not fit each other or the network.
        DataError: A class is missing.
    """
    if windows.ndim != 3 or windows.shape[1:] != (spec.channels, spec.length):
        raise ConfigError(
            f"the network takes windows (n, {spec.channels}, {spec.length}), the source has shape {windows.shape}"
        )
    if labels.shape != windows.shape[:1] or groups.shape != windows.shape[:1]:
        raise ConfigError(f"{len(windows)} windows need as many labels and groups, got {labels.shape}, {groups.shape}")
    present = np.unique(labels)
    if not np.array_equal(present, np.arange(spec.classes)):
        raise DataError(
            f"expected labels 0-{spec.classes - 1}, each present, found {present.tolist()}", "missing_class"
        )


def fit(
    windows: NDArray[np.float32],
    labels: NDArray[np.int64],
    spec: NetworkSpec,
    seed: int,
    epochs: int,
    augmentation: Augmentation | None = None,
    after_epoch: Callable[[int, float, Classifier], None] | None = None,
) -> Fitted:
    """Fit a classifier to all of the given windows; see `train_source` for the arguments.

    Cross-entropy with classes weighted to equal influence (at most tenfold), AdamW, one epoch of warm-up, cosine to
    zero; the statistics of BatchNorm are computed once more over the same windows at the end, because they are what
    every shift is measured against.

    Args:
        after_epoch: A function called with the epoch from 1, its mean loss and the model, which it must not change.

    Raises:
        DataError: Training leads to numbers that are not finite.
    """
    if augmentation is not None:
        augmentation.check_channels(spec.channels)
    x, y = torch.from_numpy(windows), torch.from_numpy(labels)
    counts = np.bincount(labels, minlength=spec.classes)
    weights = np.minimum(counts.mean() / np.maximum(counts, 1), _MAX_CLASS_WEIGHT).astype(np.float32)  # (K,)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(spec)
    _set_scaling(model, windows)
    loss_of = nn.CrossEntropyLoss(weight=torch.from_numpy(weights))
    rng = np.random.default_rng([seed, 4])
    # Small sources get smaller batches: a handful of steps per epoch would end training before it began.
    batch = max(8, min(_BATCH, len(windows) // _MIN_EPOCH_STEPS))
    steps = max(1, len(windows) // batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps, steps * epochs))
    generator = torch.Generator().manual_seed(int(np.random.default_rng([seed, 5]).integers(2**63)))
    losses = []
    for epoch in range(1, epochs + 1):
        model.train()
        total = 0.0
        with _augmented(model, augmentation, generator):
            for rows in np.array_split(rng.permutation(len(windows)), steps):
                chosen = torch.from_numpy(rows)
                loss = loss_of(model(x[chosen]), y[chosen])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
                total += float(loss.detach())
        losses.append(total / steps)
        if not math.isfinite(losses[-1]):
            raise DataError(
                f"training diverged in epoch {epoch} (loss {losses[-1]}); are values of very different size in one "
                "channel? Try --transform signedlog",
                "diverged",
            )
        if after_epoch is not None:
            after_epoch(epoch, losses[-1], model)
    with _augmented(model, augmentation, generator):
        settle_statistics(model, x, rng)
    return Fitted(model, tuple(losses))


def predict(model: Classifier, windows: NDArray[np.float32], chunk: int = 256) -> NDArray[np.float32]:
    """Give the source model's probabilities (n, classes) for raw windows (n, channels, length); the mode is kept."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        parts = [
            torch.softmax(model(torch.from_numpy(windows[start : start + chunk])), dim=1).numpy()
            for start in range(0, len(windows), chunk)
        ]
    model.train(was_training)
    return np.concatenate(parts) if parts else np.empty((0, model.spec.classes), dtype=np.float32)


def _rate(step: int, warm_up: int, total: int) -> float:
    """Learning rate as a share of its peak: up along the first epoch, then down along a half cosine."""
    if step < warm_up and total > warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / max(1, total))))


def _set_scaling(model: Classifier, windows: NDArray[np.float32]) -> None:
    """Fill the scaling constants, each (channels,), from transformed training windows, in float64."""
    values = windows.astype(np.float64)
    if model.spec.transform == "signedlog":
        values = np.sign(values) * np.log1p(np.abs(values))
    std = values.std(axis=(0, 2))
    std[std < 1e-6 * np.maximum(1.0, np.abs(values).max(axis=(0, 2)))] = 1.0  # a dead channel stays as it is
    with torch.no_grad():
        model.scaling.mean.copy_(torch.from_numpy(values.mean(axis=(0, 2))))
        model.scaling.std.copy_(torch.from_numpy(std))


@contextmanager
def _augmented(model: Classifier, augmentation: Augmentation | None, generator: torch.Generator) -> Iterator[None]:
    """Put the augmentation between the model's scaling and its first layer."""
    if augmentation is None:
        yield
        return

    def shift(_scaling: nn.Module, _raw: tuple[torch.Tensor, ...], scaled: torch.Tensor) -> torch.Tensor:
        return augment(scaled, augmentation, generator)

    hook = model.scaling.register_forward_hook(shift)
    try:
        yield
    finally:
        hook.remove()


def _accuracy(model: Classifier, windows: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    return float((predict(model, windows).argmax(axis=1) == labels).mean())
