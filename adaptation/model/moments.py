"""Mean and variance of what a BatchNorm layer sees, and how two of them become one.

Statistics here are of *all* values of a channel, over windows and time, and a variance is the biased one about the
common mean. So what a stream of single windows leaves behind equals what the same windows leave behind as one batch:
the part of the variance that lies between windows is not lost, which a moving average of variances loses.
"""

import torch
from torch import Tensor, nn

from acclimate.adaptation.model.network import Layer, batch_statistics

__all__ = ["blend", "moments", "normalise_by"]


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance (C,) of x (n, C) or (n, C, ...); of a single row without a time axis, x and 0.

    >>> [value.tolist() for value in moments(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))]
    [[2.0, 5.0], [1.0, 0.0]]
    """
    row = x[0].flatten()
    return batch_statistics(x) or (row, torch.zeros_like(row))


def blend(mean: Tensor, var: Tensor, new_mean: Tensor, new_var: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Return mean and variance of the mixture of two populations.

    Args:
        mean, var: The moments of the first population (C,).
        new_mean, new_var: The moments of the second (C,).
        share: The share of the second, 0 to 1; 0 gives the first, 1 the second.

    >>> one, zero = torch.ones(1), torch.zeros(1)
    >>> [value.item() for value in blend(zero, one, 2 * one, one, 0.5)]
    [1.0, 2.0]
    """
    step = new_mean - mean
    between = share * (1.0 - share)
    return torch.lerp(mean, new_mean, share), torch.lerp(var, new_var, share).addcmul_(step, step, value=between)


def normalise_by(layer: Layer, x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    """Normalise x with statistics (C,) by torch's own kernel: no gradient reaches the statistics, but it is quick."""
    return nn.functional.batch_norm(x, mean, var, layer.gamma, layer.beta, training=False, eps=layer.eps)
