"""OFTTA: batch statistics in early layers, the source's in late ones, and prototypes as classifier. No optimisation.

After "Optimization-Free Test-Time Adaptation for Cross-Person Activity Recognition", Wang et al., UbiComp 2024. Layer l
of n BatchNorm layers keeps a share a_l of the source; means and *standard deviations* are blended, not variances:

    (1) a_l = 0.1 (0.99 / 0.1)^(l / (n - 1)),  l = 0 .. n - 1;  0.1 with a single layer
    (2) mu = a_l mu_s + (1 - a_l) mu_B,  sigma alike,  var = sigma^2

Classification is by prototypes as in T3A (`acclimate.adaptation.methods.prototypes`), 25 per class. A batch is offered
to the memory before it is answered, so answers rest on later windows of their batch by the statistics and by the
prototypes; and since features come from (2), what the memory holds depends on the batches too. The paper's have 180 to
1000 windows; at batch one the statistics are those of a single window, and one row without a time axis keeps the
source's.
"""

import torch
from torch import Tensor

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.method import SourceContext, State, Step, require_adapted
from acclimate.adaptation.methods.prototypes import admit, head_supports, prototype_logits
from acclimate.adaptation.model.moments import normalise_by
from acclimate.adaptation.model.network import Layer, Network, batch_statistics

__all__ = ["Oftta", "source_shares"]


def source_shares(layers: int, first: float = 0.1, last: float = 0.99) -> tuple[float, ...]:
    """Return a_l of each layer: (1).

    >>> [round(share, 3) for share in source_shares(3)]
    [0.1, 0.315, 0.99]
    """
    return tuple(first * (last / first) ** (index / max(1, layers - 1)) for index in range(layers))


class Oftta:
    """Configure OFTTA.

    Args:
        context: The source; only its model is used.
        per_class: Supports per class, at least 1; see `T3a`.
        first_share, last_share: Share of the source's statistics at the first and last layer, above 0 to 1. Raising
            them stays closer to the source.

    Raises:
        ConfigError: A setting is out of range, or the network has no BatchNorm layer.
    """

    stateless = False

    def __init__(
        self, context: SourceContext, per_class: int = 25, first_share: float = 0.1, last_share: float = 0.99
    ) -> None:
        for name, share in (("first_share", first_share), ("last_share", last_share)):
            if not 0.0 < share <= 1.0:
                raise ConfigError(f"{name}: expected above 0 to 1, got {share}")
        self._network = Network(context.model)
        self._shares = source_shares(len(self._network.norms), first_share, last_share)
        self.adapts = require_adapted(self._network.statistics, "statistics")
        self._start = head_supports(self._network, per_class)

    def reset(self) -> State:
        """Return a memory of the head's rows."""
        return dict(self._start)

    @torch.no_grad()
    def adapt_batch(self, state: State, windows: Tensor) -> tuple[State, Step]:
        """Pass the batch with blended statistics, offer it to the memory, then answer from it."""
        seen = self._network.forward(windows, normalise=self._normalise)
        state, entered = admit(state, seen.features, seen.logits)
        probabilities = torch.softmax(prototype_logits(state, seen.features), dim=1)
        return state, Step(probabilities, updates=int(entered > 0), selected=entered)

    def _normalise(self, layer: Layer, x: Tensor) -> Tensor:
        found = batch_statistics(x)
        if found is None:
            return normalise_by(layer, x, layer.mean, layer.var)
        share = 1.0 - self._shares[layer.index]
        mean = torch.lerp(layer.mean, found[0], share)
        sigma = torch.lerp(layer.var.sqrt(), found[1].sqrt(), share)  # (2)
        return normalise_by(layer, x, mean, sigma.square())
