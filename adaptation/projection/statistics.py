"""A bound on how far BatchNorm's running statistics may leave their anchor; no optimizer sees them.

RECONSTRUCTED, our proposal: projections of parameters leave running_mean and running_var free, and in a network that is
fine-tuned in training mode much of the drift goes through them.

    (1) mean <- mean0 + clip(mean - mean0, +-rho sqrt(var0))
    (2) ln var <- ln var0 + clip(ln var - ln var0, +-rho_v)
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from acclimate.adaptation.errors import ConfigError

__all__ = ["bounded_statistics"]

_FLOOR = 1e-12  # a dead channel has no variance


def bounded_statistics(
    tensors: Mapping[str, Tensor], anchor: Mapping[str, Tensor], rho: float = 2.0, rho_v: float = math.log(4)
) -> dict[str, Tensor]:
    """Return the running statistics among the tensors of a network, drawn back to the bound: (1), (2).

    Args:
        tensors: A state dict; names of means end in ``running_mean``, of variances in ``running_var``.
        anchor: The same of the anchor.
        rho: The radius of (1), above 0, in standard deviations; 1 to 3 are sensible.
        rho_v: The radius of (2), above 0, in nats.

    Raises:
        ConfigError: A bound is out of range.
    """
    if not rho > 0 or not rho_v > 0:
        raise ConfigError(f"rho, rho_v: expected above 0, got {rho}, {rho_v}")
    bounded = {}
    for name, mean in tensors.items():
        if not name.endswith("running_mean"):
            continue
        variance = name.removesuffix("running_mean") + "running_var"
        mean0, var0 = anchor[name], anchor[variance].clamp(min=_FLOOR)
        reach = rho * var0.sqrt()
        bounded[name] = mean0 + (mean - mean0).clamp(min=-reach, max=reach)
        change = (tensors[variance].clamp(min=_FLOOR) / var0).log().clamp(-rho_v, rho_v)
        bounded[variance] = torch.where(change == 0, anchor[variance], var0 * change.exp())
    return bounded
