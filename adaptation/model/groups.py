"""Several batches in one forward pass, each with batch statistics of its own.

32 views of a batch, or a population of candidates, are one large batch for the matrix products and stay strangers to
each other in BatchNorm: the answers are those of one pass after the other, at a fraction of the time.
"""

import torch
from torch import Tensor

from acclimate.adaptation.model.network import Layer, Normalise, normalise_with

__all__ = ["by_group", "group_statistics"]


def group_statistics(x: Tensor, groups: int) -> tuple[Tensor, Tensor] | None:
    """Return mean and biased variance, (groups, C) each, of x (groups * n, C, ...), group after group.

    None where a channel of a group has a single value.
    """
    if x.numel() == groups * x.shape[1]:
        return None
    apart = x.reshape(groups, -1, *x.shape[1:])  # (groups, n, C, ...)
    axes = [axis for axis in range(apart.dim()) if axis not in (0, 2)]
    var, mean = torch.var_mean(apart, dim=axes, correction=0)
    return mean, var


def by_group(groups: int) -> Normalise:
    """Return a rule that normalises each of `groups` equal parts of a batch with its own statistics."""

    def rule(layer: Layer, x: Tensor) -> Tensor:
        mean, var = group_statistics(x, groups) or (layer.mean, layer.var)
        if mean.dim() == 2:
            each = len(x) // groups
            mean, var = mean.repeat_interleave(each, dim=0), var.repeat_interleave(each, dim=0)
        return normalise_with(layer, x, mean, var)

    return rule
