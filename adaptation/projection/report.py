"""The distance of a fine-tuned network from its anchor, layer by layer, and how much more it may amplify.

(1) distance   ||W - W0||, and the same over ||W0||; of running statistics the largest change in source deviations
(2) Lipschitz  the largest singular value of each linear map and convolution as it stands in the network, by power
               iteration; max |gamma| / sqrt(running_var + eps) of each BatchNorm; the network's is at most their
               product, since ReLU, max-pooling without overlap and means expand nothing
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from acclimate.adaptation.errors import ConfigError

__all__ = ["Distance", "distances", "lipschitz"]


@dataclass(frozen=True)
class Distance:
    """The distance of one tensor from its anchor.

    Attributes:
        name: The name of the tensor.
        length: ||W - W0||, in the tensor's own units.
        relative: length / ||W0||; of a running mean the largest |mean - mean0| / sqrt(var0) of a channel, of a running
            variance the largest |ln var - ln var0|.
    """

    name: str
    length: float
    relative: float


def distances(tensors: Mapping[str, Tensor], anchor: Mapping[str, Tensor]) -> tuple[Distance, ...]:
    """Return the distance of every floating-point tensor, in the order given: (1).

    Raises:
        ConfigError: The anchor lacks one, or has it in another shape.
    """
    found = []
    for name, value in tensors.items():
        if not value.is_floating_point():
            continue
        if name not in anchor or anchor[name].shape != value.shape:
            raise ConfigError(f"the anchor has no {name} of shape {tuple(value.shape)}")
        now, start = value.detach().double(), anchor[name].detach().double()
        length = float((now - start).norm())
        if name.endswith("running_mean"):
            sigma = anchor[name.removesuffix("mean") + "var"].detach().double().clamp(min=1e-12).sqrt()
            relative = float(((now - start).abs() / sigma).max())
        elif name.endswith("running_var"):
            relative = float((now.clamp(min=1e-12) / start.clamp(min=1e-12)).log().abs().max())
        else:
            relative = length / max(float(start.norm()), 1e-12)
        found.append(Distance(name, length, relative))
    return tuple(found)


def lipschitz(model: nn.Module, windows: Tensor, seed: int = 0, iterations: int = 50) -> dict[str, float]:
    """Return an estimate per layer, by the module's name, and their product as ``network``: (2).

    Args:
        model: The network in evaluation mode; linear maps, convolutions and BatchNorm are counted.
        windows: Any input that it takes: convolutions are looked at on the shapes that it causes.
        seed: The seed of the vectors that power iteration starts from.
        iterations: The iterations of each; 50 are within a percent on this project's networks.

    Raises:
        ConfigError: The network is in training mode, or a BatchNorm keeps no statistics.
    """
    if model.training:
        raise ConfigError("the network is in training mode; call eval() first")
    shapes: dict[str, torch.Size] = {}
    layers = {n: m for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.modules.conv._ConvNd, _BatchNorm))}
    handles = [
        layer.register_forward_pre_hook(lambda _module, inputs, name=name: shapes.__setitem__(name, inputs[0].shape))
        for name, layer in layers.items()
    ]
    try:
        with torch.no_grad():
            model(windows[:1])
    finally:
        for handle in handles:
            handle.remove()
    found = {name: _constant(layers[name], shape, seed, iterations) for name, shape in shapes.items()}
    return {**found, "network": float(torch.tensor(list(found.values()), dtype=torch.float64).prod())}


def _constant(layer: nn.Module, shape: torch.Size, seed: int, iterations: int) -> float:
    if isinstance(layer, _BatchNorm):
        if layer.running_var is None:
            raise ConfigError("a BatchNorm layer keeps no statistics; train it with track_running_stats=True")
        scale = (layer.running_var + layer.eps).rsqrt()
        return float((scale if layer.weight is None else scale * layer.weight.detach().abs()).max())
    generator = torch.Generator().manual_seed(seed)
    parameters = {n: torch.zeros_like(w) if n == "bias" else w.detach() for n, w in layer.named_parameters()}

    def linear(x: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(layer, parameters, (x,))
        return out

    u = torch.randn(shape, generator=generator)
    for _ in range(iterations):
        u = u / u.norm().clamp(min=1e-30)
        v, back, *_ = torch.func.vjp(linear, u)
        (u,) = back(v)  # A^T A u
    return float(u.norm().sqrt())  # ||A^T A u|| of a unit vector is sigma^2
