"""A network of linear maps, BatchNorm and ReLU in float64 numpy, forward and backward by hand.

BatchNorm takes the statistics of the batch, and the gradient goes through them. No automatic differentiation.
"""

import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from acclimate.adaptation.method import SourceContext
from acclimate.adaptation.model.nets import Classifier
from tests.adaptation.tiny_nets import MLP, settled, windows_for

Array = npt.NDArray[np.float64]
Tensors = dict[str, Array]
EPS = 1e-5


def source(sureness: float = 1.0) -> SourceContext:
    """Return the tiny tabular net in float64, its head's weights times `sureness`, and a source sample."""
    model: Classifier = copy.deepcopy(settled(MLP)[0]).double()
    with torch.no_grad():
        model.head.weight *= sureness
    windows = torch.from_numpy(windows_for(MLP, 96, seed=1)).double()
    return SourceContext(model, windows, torch.arange(96) % 3)


def tensors_of(context: SourceContext) -> Tensors:
    """Return the model's tensors as numpy arrays."""
    return {name: value.numpy().copy() for name, value in context.model.state_dict().items()}


def scaled(t: Tensors, windows: torch.Tensor) -> Array:
    """Return what the first map sees (n, C)."""
    x = windows.numpy()[:, :, 0]
    return np.asarray((np.sign(x) * np.log1p(np.abs(x)) - t["scaling.mean"]) / t["scaling.std"])


def forward(t: Tensors, x: Array) -> tuple[Array, list[dict[str, Any]]]:
    """Return logits of x (n, C), and per block what the way back needs."""
    trace = []
    for index in range(2):
        norm = f"blocks.{index}.norm."
        h = x @ t[f"blocks.{index}.map.weight"].T
        inverse = 1 / np.sqrt(h.var(axis=0) + EPS)
        unit = (h - h.mean(axis=0)) * inverse
        y = unit * t[norm + "weight"] + t[norm + "bias"]
        trace.append({"x": x, "unit": unit, "inverse": inverse, "y": y})
        x = np.maximum(y, 0)
    trace.append({"x": x})
    return x @ t["head.weight"].T + t["head.bias"], trace


def backward(t: Tensors, trace: list[dict[str, Any]], of_logits: Array) -> Tensors:
    """Return the gradients of all parameters, given that of the logits (n, K)."""
    gradients = {"head.weight": of_logits.T @ trace[2]["x"], "head.bias": of_logits.sum(axis=0)}
    of_x = of_logits @ t["head.weight"]
    for index in (1, 0):
        kept, norm = trace[index], f"blocks.{index}.norm."
        of_y = of_x * (kept["y"] > 0)
        gradients[norm + "weight"] = (of_y * kept["unit"]).sum(axis=0)
        gradients[norm + "bias"] = of_y.sum(axis=0)
        of_unit = of_y * t[norm + "weight"]
        through_mean, through_var = of_unit.mean(axis=0), (of_unit * kept["unit"]).mean(axis=0)
        of_h = (of_unit - through_mean - kept["unit"] * through_var) * kept["inverse"]
        gradients[f"blocks.{index}.map.weight"] = of_h.T @ kept["x"]
        of_x = of_h @ t[f"blocks.{index}.map.weight"]
    return gradients


def softmax(logits: Array) -> Array:
    """Return probabilities (n, K)."""
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def entropy(logits: Array) -> tuple[Array, Array]:
    """Return H (n,) and dH/dlogits (n, K): -p_j (ln p_j + H)."""
    p = softmax(logits)
    h = -(p * np.log(p)).sum(axis=1)
    return h, -p * (np.log(p) + h[:, None])


def zeros(names: tuple[str, ...]) -> dict[str, Any]:
    """Return the start of a momentum."""
    return dict.fromkeys(names, 0.0)


def affine(blocks: tuple[int, ...] = (0, 1)) -> tuple[str, ...]:
    """Return the names of gamma and beta of these blocks."""
    return tuple(f"blocks.{block}.norm.{kind}" for block in blocks for kind in ("weight", "bias"))
