"""Running statistics that go on running: an exponential moving average over the device's windows.

The momentum m is per window, so that a batch of n windows moves the statistics as far as n batches of one:

    (1) M = 1 - (1 - m)^n
    (2) mu <- mu + M (mu_B - mu)
    (3) var <- (1 - M) var + M var_B + M (1 - M) (mu_B - mu)^2
    (4) answer with mu, var

The last term of (3) is not in the published form, which averages variances alone: at batch one that loses all variance
between windows, and a single row has none at all. With it (2) and (3) average first and second moments.
Statistics are those of each layer's input in this very pass: a layer sees what the layers before it have corrected.
"""

import torch
from torch import Tensor

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.method import SourceContext, State, Step, require_adapted
from acclimate.adaptation.model.moments import blend, moments, normalise_by
from acclimate.adaptation.model.network import Layer, Network

__all__ = ["EmaBatchNorm"]


class EmaBatchNorm:
    """Configure a moving average of statistics.

    Args:
        context: The source; only its model is used.
        momentum: m, weight of one window, 0 to 1. Raising it follows the device sooner, and the class it now shows.

    Raises:
        ConfigError: The momentum is out of range, or the network has no BatchNorm layer.
    """

    stateless = False

    def __init__(self, context: SourceContext, momentum: float = 0.01) -> None:
        if not 0.0 <= momentum <= 1.0:
            raise ConfigError(f"momentum: expected 0 to 1, got {momentum}")
        self._network = Network(context.model)
        self._momentum = momentum
        self.adapts = require_adapted(self._network.statistics, "statistics")

    def reset(self) -> State:
        """Return the source's statistics."""
        return {name: self._network.tensors[name] for name in self.adapts}

    @torch.no_grad()
    def adapt_batch(self, state: State, windows: Tensor) -> tuple[State, Step]:
        """Take the batch into the statistics, then answer it with them."""
        share = 1.0 - (1.0 - self._momentum) ** len(windows)  # (1)
        new: dict[str, Tensor] = {}

        def normalise(layer: Layer, x: Tensor) -> Tensor:
            names = self.adapts[2 * layer.index : 2 * layer.index + 2]
            mean, var = blend(state[names[0]], state[names[1]], *moments(x), share)  # (2), (3)
            new.update(zip(names, (mean, var), strict=True))
            return normalise_by(layer, x, mean, var)  # (4)

        logits = self._network.forward(windows, normalise=normalise).logits
        return new, Step(torch.softmax(logits, dim=1), updates=1, selected=len(windows))
