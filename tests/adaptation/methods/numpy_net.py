"""The compact classifiers once more, in float64 numpy: an independent reference for every method's forward pass."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from acclimate.adaptation.method import SourceContext
from acclimate.adaptation.model.nets import Classifier, to_tensors
from acclimate.adaptation.model.spec import BATCH_NORM_EPS, SCALED_LIMIT, NetworkSpec
from tests.adaptation.tiny_nets import settled, windows_for

Array = npt.NDArray[np.float64]
# (layer, its input (n, C, ...), source mean, source variance) -> mean and variance, (C,) or (n, C)
Rule = Callable[[int, Array, Array, Array], tuple[Array, Array]]


def source_for(spec: NetworkSpec, seed: int = 0) -> SourceContext:
    """Return a small source with lifelike statistics."""
    rng = np.random.default_rng(5)
    labels = torch.from_numpy(rng.integers(0, spec.classes, 50))
    return SourceContext(settled(spec)[0], torch.from_numpy(windows_for(spec, 50, seed=1)), labels, seed)


def shifted(spec: NetworkSpec, count: int, seed: int = 0) -> torch.Tensor:
    """Return windows of a device with another gain and offset."""
    return torch.from_numpy(1.4 * windows_for(spec, count, seed) + np.float32(0.5))


def axes(x: Array) -> tuple[int, ...]:
    """Return every axis but that of channels."""
    return (0, *range(2, x.ndim))


def softmax(logits: Array) -> Array:
    """Return each row's probabilities."""
    exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponent / exponent.sum(axis=1, keepdims=True))


def entropy(p: Array) -> Array:
    """Return each row's entropy in nats."""
    return np.asarray(-(p * np.log(p)).sum(axis=1))


def run(model: Classifier, windows: torch.Tensor, rule: Rule | None = None) -> tuple[Array, Array]:
    """Return logits and features, with the statistics that the rule gives at each BatchNorm layer."""
    t: dict[str, Any] = {name: value.astype(np.float64) for name, value in to_tensors(model).items()}
    x = windows.numpy().astype(np.float64)
    if model.spec.transform == "signedlog":
        x = np.sign(x) * np.log1p(np.abs(x))
    x = np.clip((x - t["scaling.mean"][:, None]) / t["scaling.std"][:, None], -SCALED_LIMIT, SCALED_LIMIT)
    if model.spec.kind == "mlp":
        x = x.reshape(len(x), -1)
    for index in range(model.spec.layers):
        weight = t[f"blocks.{index}.map.weight"]
        if model.spec.kind == "conv1d":
            half = weight.shape[2] // 2
            padded = np.pad(x, ((0, 0), (0, 0), (half, half)))
            spans = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2], axis=2)
            x = np.einsum("nclk,ock->nol", spans, weight)
        else:
            x = x @ weight.T
        norm = {kind: t[f"blocks.{index}.norm.{kind}"] for kind in ("running_mean", "running_var", "weight", "bias")}
        mean, var = norm["running_mean"], norm["running_var"]
        if rule is not None:
            mean, var = rule(index, x, mean, var)
        extra = (1,) * (x.ndim - 2)
        mean, var, gamma, beta = (v.reshape(*v.shape, *extra) for v in (mean, var, norm["weight"], norm["bias"]))
        x = np.maximum((x - mean) / np.sqrt(var + BATCH_NORM_EPS) * gamma + beta, 0.0)
        if model.spec.kind == "conv1d":
            whole = x.shape[2] // 2 * 2
            x = x[:, :, :whole].reshape(*x.shape[:2], -1, 2).max(axis=3)
    features = x.mean(axis=2) if x.ndim == 3 else x
    return features @ t["head.weight"].T + t["head.bias"], features
