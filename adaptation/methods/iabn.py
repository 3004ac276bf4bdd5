"""IABN at test time: correct a window's statistics only where they differ by more than chance would have them.

After "NOTE: Robust Continual Test-time Adaptation Against Temporal Correlation", Gong et al., NeurIPS 2022. NOTE also
trains its source model with this layer; here an ordinary source model meets it at test time only. Per window, with L
samples at the layer, mean mu_i and unbiased variance var_i of the window:

    (1) mu = mu_s + shrink(mu_i - mu_s, k sqrt((var_s + eps) / L))
    (2) var = relu(var_s + shrink(var_i - var_s, k (var_s + eps) sqrt(2 / (L - 1))))
    (3) shrink(d, t) = sign(d) max(|d| - t, 0)

k counts standard errors of a mean and a variance of L independent values. Samples of a sensor are not independent, so
the true errors are larger and more is corrected than k suggests. A layer without a time axis (L = 1) keeps the source's
statistics; a network of such layers alone is refused.
"""

import math

import torch
from torch import Tensor

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.method import SourceContext, State, Step
from acclimate.adaptation.methods.layer_choice import layers_with_time
from acclimate.adaptation.model.moments import normalise_by
from acclimate.adaptation.model.network import Layer, Network, has_time, normalise_with

__all__ = ["Iabn", "shrink"]


def shrink(difference: Tensor, threshold: Tensor) -> Tensor:
    """Return the difference moved towards 0 by the threshold, and 0 within it: (3).

    >>> shrink(torch.tensor([-3.0, 0.5, 3.0]), torch.tensor(1.0)).tolist()
    [-2.0, 0.0, 2.0]
    """
    return difference - torch.maximum(torch.minimum(difference, threshold), -threshold)


class Iabn:
    """Configure IABN.

    Args:
        context: The source; its model, and one window for its shape.
        k: Standard errors that are left alone, 0 or more. Raising it corrects less.

    Raises:
        NotAdaptable: The network has no BatchNorm layer, or rows without a time axis have no statistics of their own.
        ConfigError: k is out of range.
    """

    stateless = True

    def __init__(self, context: SourceContext, k: float = 4.0) -> None:
        if not (math.isfinite(k) and k >= 0):
            raise ConfigError(f"k: expected a finite number of at least 0, got {k}")
        self._network = Network(context.model)
        self._k = k
        layers, names = layers_with_time(self._network, context.windows), self._network.statistics
        self.adapts = tuple(name for index, name in enumerate(names) if layers[index // 2])

    def reset(self) -> State:
        """Return nothing."""
        return {}

    @torch.no_grad()
    def adapt_batch(self, state: State, windows: Tensor) -> tuple[State, Step]:
        """Answer each window by itself."""
        return state, Step(torch.softmax(self._network.forward(windows, normalise=self._normalise).logits, dim=1))

    def _normalise(self, layer: Layer, x: Tensor) -> Tensor:
        if not has_time(x):
            return normalise_by(layer, x, layer.mean, layer.var)
        samples = x[0, 0].numel()
        var_i, mean_i = torch.var_mean(x.flatten(2), dim=2)  # (n, C) each
        spread = layer.var + layer.eps  # (C,)
        mean = layer.mean + shrink(mean_i - layer.mean, self._k * torch.sqrt(spread / samples))  # (1)
        limit = (self._k * math.sqrt(2.0 / (samples - 1))) * spread
        var = torch.relu(layer.var + shrink(var_i - layer.var, limit))  # (2)
        return normalise_with(layer, x, mean, var)
