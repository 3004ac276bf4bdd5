"""Supervised training of the source model: the one place where labels of the source are used.

Held out for the accuracy that is reported, and for the calibration of the shift magnitude: whole groups where there are
at least five, because the question is how the model does on a device that it never saw; else the end of what every
group shows of every class. Scaling constants come from the training part only. Hyper-parameters were chosen by held-out
source accuracy; no target was looked at.

Equal arguments and an equal number of torch threads give equal weights, bit for bit; the caller's random state and
threads are left alone.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from adaptation.dataset import Dataset
from adaptation.errors import ConfigError, DataError
from adaptation.nets import Classifier, build
from adaptation.spec import NetworkSpec, compact_spec

__all__ = ["Progress", "Trained", "default_epochs", "default_spec", "hold_out", "predict", "train_source"]

Progress = Callable[[int, int, float, float], None]  # epoch from 1, epochs, mean loss, held-out accuracy

_BATCH = 128
_LEARNING_RATE = 2e-3
_WEIGHT_DECAY = 1e-3
_MIN_EPOCH_STEPS = 24
_HELD_OUT_SHARE = 0.2
_MIN_GROUPS = 5
_MAX_CLASS_WEIGHT = 10.0


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained source model and what is known about it.

    Attributes:
        model: In evaluation mode, on the CPU.
        held_out: (n,) which of the given windows were not trained on.
        held_out_by: ``groups`` (whole groups) or ``tail`` (the end of every group's share of every class).
        held_out_groups: Names of the groups that were held out; empty for ``tail``.
        accuracy: Share of held-out windows that are classified right, 0 to 1.
        recalls: The same for each class alone; None where the held-out part has no window of it.
        losses: Mean training loss of each epoch, in nats, classes weighted.
        seed: Seed that was used.
        threads: Torch threads during training; another number may round differently.
    """

    model: Classifier
    held_out: NDArray[np.bool_]
    held_out_by: str
    held_out_groups: tuple[str, ...]
    accuracy: float
    recalls: tuple[float | None, ...]
    losses: tuple[float, ...]
    seed: int
    threads: int


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
) -> Trained:
    """Train a classifier on raw source windows.

    Cross-entropy with classes weighted to equal influence (at most tenfold), AdamW, one epoch of warm-up, cosine to
    zero; the statistics of BatchNorm are computed once more over the training part at the end, because they are what
    every shift is measured against.

    Args:
        windows: (n, channels, length), raw and finite.
        labels: (n,) in 0..classes-1, each class present.
        groups: (n,) device names, in stream order.
        spec: Network to train.
        seed: Decides the held-out groups, initial weights and the order of batches.
        epochs: Passes over the training part, at least 1; see `default_epochs`.
        progress: Called after each epoch.

    Raises:
        ConfigError: Arguments do not fit each other.
        DataError: The windows make no model: a class is missing, or training leads to numbers that are not finite.
    """
    epochs = default_epochs(len(windows)) if epochs is None else epochs
    _check(windows, labels, groups, spec, epochs)
    held_out, names = hold_out(labels, groups, seed)
    train_rows = np.flatnonzero(~held_out)
    x, y = torch.from_numpy(windows[train_rows]), torch.from_numpy(labels[train_rows])
    counts = np.bincount(labels[train_rows], minlength=spec.classes)
    if held_out.sum() == 0 or counts.min() == 0:
        raise DataError(
            f"the source is too small to hold out a test part: windows per class left to train on {counts.tolist()}, "
            f"held out {int(held_out.sum())}; expected at least two windows of each class",
            "too_few_windows",
        )
    weights = np.minimum(counts.mean() / counts, _MAX_CLASS_WEIGHT).astype(np.float32)  # (K,)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(spec)
    _set_scaling(model, windows[train_rows])
    loss_of = nn.CrossEntropyLoss(weight=torch.from_numpy(weights))
    rng = np.random.default_rng([seed, 4])
    # Small sources get smaller batches: a handful of steps per epoch would end training before it began.
    batch = max(8, min(_BATCH, train_rows.size // _MIN_EPOCH_STEPS))
    steps = max(1, train_rows.size // batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps, steps * epochs))
    losses = []
    for epoch in range(1, epochs + 1):
        model.train()
        total = 0.0
        for rows in np.array_split(rng.permutation(train_rows.size), steps):
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
        if progress is not None:
            progress(epoch, epochs, losses[-1], _accuracy(model, windows[held_out], labels[held_out]))
    _settle_statistics(model, x, rng)
    right = predict(model, windows[held_out]).argmax(axis=1) == labels[held_out]
    recalls = tuple(
        float(right[labels[held_out] == label].mean()) if (labels[held_out] == label).any() else None
        for label in range(spec.classes)
    )
    return Trained(
        model=model,
        held_out=held_out,
        held_out_by="groups" if names else "tail",
        held_out_groups=names,
        accuracy=float(right.mean()),
        recalls=recalls,
        losses=tuple(losses),
        seed=seed,
        threads=torch.get_num_threads(),
    )


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


def _check(
    windows: NDArray[np.float32], labels: NDArray[np.int64], groups: NDArray[np.str_], spec: NetworkSpec, epochs: int
) -> None:
    if epochs < 1:
        raise ConfigError(f"expected at least 1 epoch, got {epochs}")
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


def _settle_statistics(model: Classifier, x: torch.Tensor, rng: np.random.Generator) -> None:
    """Replace BatchNorm's running averages, which remember the last batches best, by plain means over all batches."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    model.train()
    with torch.no_grad():
        for rows in np.array_split(rng.permutation(len(x)), max(1, len(x) // 256)):
            model(x[torch.from_numpy(rows)])
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


def _accuracy(model: Classifier, windows: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    return float((predict(model, windows).argmax(axis=1) == labels).mean())
