"""A private, frozen copy of a source model whose tensors and normalisation can be replaced for one forward pass.

Every method works on this copy, so the caller's model cannot change. Any torch network will do that has BatchNorm
layers (of any dimension: published code looks for ``BatchNorm2d`` alone and adapts nothing on sensor networks) and a
last ``nn.Linear``, the head.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from acclimate.adaptation.errors import NotAdaptable
from acclimate.adaptation.model.batch_norms import batch_norms

__all__ = ["Layer", "Network", "Normalise", "Pass", "batch_statistics", "by_batch", "has_time", "normalise_with"]


@dataclass(frozen=True)
class Layer:
    """One BatchNorm layer as it stands in the current forward pass.

    Attributes:
        index: Number from 0, in the order of the network's modules.
        mean, var: Running statistics in force (C,).
        gamma, beta: Affine parameters in force (C,).
        eps: Epsilon of the layer.
    """

    index: int
    mean: Tensor
    var: Tensor
    gamma: Tensor
    beta: Tensor
    eps: float


Normalise = Callable[[Layer, Tensor], Tensor]


@dataclass(frozen=True)
class Pass:
    """The result of one forward pass: logits (n, K) and the input of the head (n, F)."""

    logits: Tensor
    features: Tensor


def has_time(x: Tensor) -> bool:
    """Tell whether the input (n, C) or (n, C, ...) of a layer holds more than one sample per window.

    >>> has_time(torch.zeros(2, 3)), has_time(torch.zeros(2, 3, 1)), has_time(torch.zeros(2, 3, 5))
    (False, False, True)
    """
    return x.dim() > 2 and x.shape[2:].numel() > 1


def batch_statistics(x: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return mean and biased variance (C,) over all windows and samples of x (n, C) or (n, C, ...).

    None where a channel has a single value: one row without a time axis has no statistics.
    """
    if x.numel() == x.shape[1]:
        return None
    axes = [axis for axis in range(x.dim()) if axis != 1]
    var, mean = torch.var_mean(x, dim=axes, correction=0)
    return mean, var


def normalise_with(layer: Layer, x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    """Normalise x (n, C, ...) with statistics (C,), or (n, C) for each window its own, and the layer's gamma, beta."""
    shape = (1, -1, *(1,) * (x.dim() - 2)) if mean.dim() == 1 else (*mean.shape, *(1,) * (x.dim() - 2))
    scale = layer.gamma * torch.rsqrt(var + layer.eps)
    return x * scale.reshape(shape) + (layer.beta - mean * scale).reshape(shape)


def by_batch(layer: Layer, x: Tensor) -> Tensor:
    """Normalise with the statistics of the batch itself; with the source's where a batch has none."""
    mean, var = batch_statistics(x) or (layer.mean, layer.var)
    return normalise_with(layer, x, mean, var)


class _Norm(nn.Module):
    """Stands where a BatchNorm layer stood, with the same tensor names."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, norm: _BatchNorm, index: int) -> None:
        super().__init__()
        assert norm.running_mean is not None  # batch_norms() has checked both
        assert norm.running_var is not None
        self.index, self.eps = index, norm.eps
        ones, zeros = torch.ones_like(norm.running_mean), torch.zeros_like(norm.running_mean)
        self.weight = nn.Parameter(ones if norm.weight is None else norm.weight.detach(), requires_grad=False)
        self.bias = nn.Parameter(zeros if norm.bias is None else norm.bias.detach(), requires_grad=False)
        self.register_buffer("running_mean", norm.running_mean)
        self.register_buffer("running_var", norm.running_var)
        self.rule: Normalise | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.rule is None:
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        layer = Layer(self.index, self.running_mean, self.running_var, self.weight, self.bias, self.eps)
        return self.rule(layer, x)


class Network:
    """The copy; `forward` is its only action, and leaves nothing behind.

    Args:
        model: Trained network in evaluation mode; it is copied.

    Attributes:
        tensors: Parameters and running statistics by their names in the model's state dict; never written.
        norms: Module names of the BatchNorm layers, in order: ``blocks.0.norm``.
        affine: Names of all gamma and beta, layer by layer.
        statistics: Names of all running means and variances, layer by layer.
        head: Module name of the last linear layer.
        classes, features: Outputs and inputs of the head.

    Raises:
        NotAdaptable: The network has no BatchNorm layer, or no linear layer.
        ConfigError: A BatchNorm layer is training or keeps no statistics.
    """

    def __init__(self, model: nn.Module) -> None:
        batch_norms(model)
        self._model = copy.deepcopy(model).requires_grad_(False)
        modules = dict(self._model.named_modules())
        self.norms = tuple(name for name, module in modules.items() if isinstance(module, _BatchNorm))
        self._rules: list[_Norm] = []
        for index, name in enumerate(self.norms):
            parent, _, child = name.rpartition(".")
            norm = _Norm(modules[name], index)
            setattr(modules[parent], child, norm)
            self._rules.append(norm)
        linear = [(name, module) for name, module in modules.items() if isinstance(module, nn.Linear)]
        if not linear:
            raise NotAdaptable("the network has no nn.Linear: expected one as its last layer, the classifier's head")
        self.head, head = linear[-1]
        self.classes, self.features = head.out_features, head.in_features
        head.register_forward_pre_hook(self._keep_features)
        self._features: Tensor | None = None
        named = (*self._model.named_parameters(), *self._model.named_buffers())
        self.tensors: dict[str, Tensor] = {name: tensor.detach() for name, tensor in named}
        # torch looks for tied tensors at every call, which takes as long as a small layer; once is enough.
        parameters = [parameter for _, parameter in self._model.named_parameters(remove_duplicate=False)]
        self._tied = len({id(parameter) for parameter in parameters}) < len(parameters)
        self.affine = tuple(f"{name}.{kind}" for name in self.norms for kind in ("weight", "bias"))
        self.statistics = tuple(f"{name}.{kind}" for name in self.norms for kind in ("running_mean", "running_var"))

    @torch.no_grad()
    def with_time(self, windows: Tensor) -> tuple[bool, ...]:
        """Tell for each BatchNorm layer whether one window of this shape (n, C, L) has statistics of its own there."""
        flags = [False] * len(self.norms)

        def look(layer: Layer, x: Tensor) -> Tensor:
            flags[layer.index] = has_time(x)
            return normalise_with(layer, x, layer.mean, layer.var)

        self.forward(windows[:1], normalise=look)
        return tuple(flags)

    def _keep_features(self, _head: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._features = inputs[0]

    def forward(
        self, windows: Tensor, tensors: Mapping[str, Tensor] | None = None, normalise: Normalise | None = None
    ) -> Pass:
        """Run windows (n, C, L) through the network.

        Args:
            windows: Raw windows.
            tensors: Replacements by name, for this pass; gradients flow into those that ask for them. Other names than
                the network's are ignored, so that a whole state may be given.
            normalise: The rule of each BatchNorm layer for its input (n, C, ...); running statistics when not given.
        """
        for norm in self._rules:
            norm.rule = normalise
        try:
            replaced = {name: tensor for name, tensor in (tensors or {}).items() if name in self.tensors}
            logits: Tensor = (
                functional_call(self._model, replaced, (windows,), tie_weights=self._tied)
                if replaced
                else self._model(windows)
            )
            features = self._features
        finally:
            self._features = None
            for norm in self._rules:
                norm.rule = None
        assert features is not None  # the head always runs
        return Pass(logits, features)
