"""Statistics of the batch, held to the source's by a prior; nothing is kept.

After "Improving robustness against common corruptions by covariate shift adaptation", Schneider et al., NeurIPS 2020.
With N the prior in windows, n the windows of the batch and mu_B, var_B over all their values:

    (1) mu = N / (N + n) mu_s + n / (N + n) mu_B,  var alike

N = 0 is plain batch statistics, a large N the source. 16 is the usual choice for small batches. One row without a time
axis has no variance: there the source's statistics stay. An answer depends on its batch.
"""

import math

import torch
from torch import Tensor

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.method import SourceContext, State, Step, require_adapted
from acclimate.adaptation.model.moments import normalise_by
from acclimate.adaptation.model.network import Layer, Network, batch_statistics

__all__ = ["BatchNormPrior"]


class BatchNormPrior:
    """Configure batch statistics with a source prior.

    Args:
        context: The source; only its model is used.
        prior: N, in windows, 0 or more. Raising it stays closer to the source.

    Raises:
        ConfigError: The prior is out of range, or the network has no BatchNorm layer.
    """

    stateless = False

    def __init__(self, context: SourceContext, prior: float = 16.0) -> None:
        if not (math.isfinite(prior) and prior >= 0):
            raise ConfigError(f"prior: expected a finite number of windows, at least 0, got {prior}")
        self._network = Network(context.model)
        self._prior = prior
        self.adapts = require_adapted(self._network.statistics, "statistics")

    def reset(self) -> State:
        """Return nothing."""
        return {}

    @torch.no_grad()
    def adapt_batch(self, state: State, windows: Tensor) -> tuple[State, Step]:
        """Answer the batch with its own statistics and the source's."""
        return state, Step(torch.softmax(self._network.forward(windows, normalise=self._normalise).logits, dim=1))

    def _normalise(self, layer: Layer, x: Tensor) -> Tensor:
        found = batch_statistics(x)
        if found is None:
            return normalise_by(layer, x, layer.mean, layer.var)
        share = len(x) / (self._prior + len(x))
        mean, var = (
            torch.lerp(old, new, share) for old, new in zip((layer.mean, layer.var), found, strict=True)
        )  # (1)
        return normalise_by(layer, x, mean, var)
