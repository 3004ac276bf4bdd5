"""The compact classifiers in torch: the form that is trained, and the reference for the exported graphs.

They take raw windows: transform and scaling are part of the model, so that nobody can forget them.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from acclimate.adaptation.errors import ContractError
from acclimate.adaptation.model.spec import BATCH_NORM_EPS, SCALED_LIMIT, NetworkSpec, expected_tensors

__all__ = ["Classifier", "build", "from_tensors", "to_tensors"]


class _Scaling(nn.Module):
    """Raw values to source standard deviations, with constants from the source only."""

    mean: Tensor
    std: Tensor

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.signed_log = spec.transform == "signedlog"
        self.register_buffer("mean", torch.zeros(spec.channels))
        self.register_buffer("std", torch.ones(spec.channels))

    def forward(self, windows: Tensor) -> Tensor:
        """Transform, scale and clip raw windows; shape (B, C, L) in and out."""
        x = torch.sign(windows) * torch.log1p(torch.abs(windows)) if self.signed_log else windows
        x = (x - self.mean[:, None]) / self.std[:, None]  # (B, C, L)
        return torch.clamp(x, -SCALED_LIMIT, SCALED_LIMIT)


class _Halving(torch.autograd.Function):
    """Max-pooling in pairs: `nn.MaxPool1d(2)` bit for bit, three times as fast where a gradient is asked for."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Shape (..., L) to (..., L // 2); an odd last sample is left out."""
        paired = x.shape[-1] // 2 * 2
        first, second = x[..., 0:paired:2], x[..., 1:paired:2]
        if ctx.needs_input_grad[0]:
            ctx.length = x.shape[-1]
            ctx.save_for_backward((first >= second).to(x.dtype))
        return torch.maximum(first, second)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Give each gradient to the larger of its pair, to the first of equals."""
        (to_first,) = ctx.saved_tensors
        paired = 2 * gradient.shape[-1]
        x_gradient = gradient.new_empty(*gradient.shape[:-1], ctx.length)
        x_gradient[..., paired:] = 0
        first, second = x_gradient[..., 0:paired:2], x_gradient[..., 1:paired:2]
        torch.mul(gradient, to_first, out=first)
        torch.sub(gradient, first, out=second)
        return x_gradient


class _MaxPool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, width, L) to (B, width, L // 2)."""
        halved: Tensor = _Halving.apply(x)
        return halved


class _Block(nn.Module):
    """Map, BatchNorm, in time halving of the length, and ReLU. The map has no bias: BatchNorm would cancel it."""

    def __init__(self, inputs: int, width: int, kernel: int | None) -> None:
        super().__init__()
        self.map: nn.Module
        self.pool: nn.Module
        if kernel is None:
            self.map = nn.Linear(inputs, width, bias=False)
            self.pool = nn.Identity()
        else:
            self.map = nn.Conv1d(inputs, width, kernel, padding=kernel // 2, bias=False)
            self.pool = _MaxPool()
        self.norm = nn.BatchNorm1d(width, eps=BATCH_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes (B, inputs, L) to (B, width, L // 2), or (B, inputs) to (B, width)."""
        return torch.relu(self.pool(self.norm(self.map(x))))


class Classifier(nn.Module):
    """A compact classifier; use `build`.

    Args:
        spec: The description of the network.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.scaling = _Scaling(spec)
        in_time = spec.kind == "conv1d"
        inputs = (spec.channels if in_time else spec.channels * spec.length, *spec.widths[:-1])
        kernels: tuple[int | None, ...] = spec.kernels if in_time else (None,) * spec.layers
        sizes = zip(inputs, spec.widths, kernels, strict=True)
        self.blocks = nn.ModuleList(_Block(source, width, kernel) for source, width, kernel in sizes)
        self.head = nn.Linear(spec.features, spec.classes)

    def features(self, windows: Tensor) -> Tensor:
        """Return what the head sees: (B, F), from raw windows (B, C, L)."""
        x: Tensor = self.scaling(windows)  # (B, C, L)
        if self.spec.kind == "mlp":
            x = x.flatten(1)  # (B, C * L)
        for block in self.blocks:
            x = block(x)
        return x.mean(dim=2) if self.spec.kind == "conv1d" else x  # (B, F)

    def forward(self, windows: Tensor) -> Tensor:
        """Return logits (B, K) for raw windows (B, C, L)."""
        logits: Tensor = self.head(self.features(windows))
        return logits


def build(spec: NetworkSpec) -> Classifier:
    """Return a new classifier with torch's initial weights (seed torch first) and scaling constants 0 and 1.

    >>> build(NetworkSpec("mlp", 2, 1, 3, (4,)))(torch.zeros(5, 2, 1)).shape
    torch.Size([5, 3])
    """
    return Classifier(spec)


def to_tensors(model: Classifier) -> dict[str, npt.NDArray[np.float32]]:
    """Return copies of all tensors of a model, named as `spec.expected_tensors` names them."""
    state = model.state_dict()
    return {name: state[name].detach().cpu().numpy().copy() for name in expected_tensors(model.spec)}


def from_tensors(spec: NetworkSpec, tensors: Mapping[str, npt.NDArray[np.float32]]) -> Classifier:
    """Return a model in evaluation mode with these tensors; they are copied.

    Raises:
        ContractError: A tensor is missing, unknown or has another shape than the spec says.
    """
    expected = expected_tensors(spec)
    if set(tensors) != set(expected):
        missing, unknown = sorted(set(expected) - set(tensors)), sorted(set(tensors) - set(expected))
        raise ContractError(f"tensors do not fit the network: missing {missing}, unknown {unknown}")
    model = Classifier(spec)
    state = model.state_dict()
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise ContractError(f"tensor {name}: expected shape {shape}, found {tensors[name].shape}")
        state[name] = torch.from_numpy(np.array(tensors[name], dtype=np.float32))
    model.load_state_dict(state)
    return model.eval()
