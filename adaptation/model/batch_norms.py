"""Find the BatchNorm layers of any torch network and look at what reaches them, without changing the network.

Published adaptation code matches ``BatchNorm2d`` alone and silently adapts nothing on sensor networks; here every
dimension counts, and a network without any is an error.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from acclimate.adaptation.errors import ConfigError, NotAdaptable

__all__ = ["at_batch_norms", "batch_norms", "settle_statistics", "source_statistics"]


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the BatchNorm layers of any network (1-D, 2-D, 3-D alike), in the order of its modules.

    Raises:
        NotAdaptable: The network has no such layer.
        ConfigError: One is training or keeps no statistics: it would look at the batch.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        raise NotAdaptable("the network has no BatchNorm layer: expected at least one, there is nothing to adapt")
    for index, norm in enumerate(norms):
        if norm.training:
            raise ConfigError(f"BatchNorm layer {index} is in training mode; call eval() on the trained network first")
        source_statistics(norm)
    return norms


def source_statistics(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Return the frozen mean and variance (C,) of one BatchNorm layer.

    Raises:
        ConfigError: The layer keeps no statistics.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise ConfigError("a BatchNorm layer keeps no source statistics; train it with track_running_stats=True")
    return norm.running_mean, norm.running_var


@contextmanager
def at_batch_norms(
    norms: Sequence[_BatchNorm], see: Callable[[int, _BatchNorm, Tensor], Tensor | None]
) -> Iterator[None]:
    """Call ``see(index, layer, input)`` at each BatchNorm layer of a forward pass; a returned tensor is its output."""

    def hook(index: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]:
        return lambda _module, inputs, _output: see(index, norms[index], inputs[0])

    handles = [norm.register_forward_hook(hook(index)) for index, norm in enumerate(norms)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def settle_statistics(model: nn.Module, x: Tensor, rng: np.random.Generator) -> None:
    """Replace BatchNorm's running averages, which remember the last batches best, by plain means over all batches.

    Args:
        model: Left in evaluation mode.
        x: (n, ...) what it was trained on.
        rng: Mixes the windows: batches of one class would have too small a variance.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
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
