"""TENT: minimise the entropy of the answers by BatchNorm's gamma and beta alone, one step per batch.

After "Tent: Fully Test-Time Adaptation by Entropy Minimization", Wang et al., ICLR 2021. BatchNorm uses the statistics
of the batch. The answer is the one from before the step.

    (1) L = mean_i H(p_i),  H(p) = -sum_k p_k ln p_k
    (2) theta <- Adam(theta, dL/dtheta),  theta = all gamma, beta

Defaults are the paper's for small images: Adam, 1e-3. In time order batch statistics hold one class and TENT destroys a
model; it is here because every comparison needs it.
"""

import torch
from torch import Tensor

from acclimate.adaptation.method import SourceContext, State, Step, require_adapted
from acclimate.adaptation.model.losses import entropies
from acclimate.adaptation.model.network import Network, by_batch
from acclimate.adaptation.state.optimizers import adam_start, adam_step, all_finite, gradients_of

__all__ = ["Tent"]


class Tent:
    """Configure TENT.

    Args:
        context: The source; only its model is used.
        learning_rate: The rate of Adam. Raising it adapts, and collapses, faster; 0 leaves batch statistics alone.

    Raises:
        ConfigError: The network has no BatchNorm layer.
    """

    stateless = False

    def __init__(self, context: SourceContext, learning_rate: float = 1e-3) -> None:
        self._network = Network(context.model)
        self._learning_rate = learning_rate
        self.adapts = require_adapted(self._network.affine, "gamma or beta")

    def reset(self) -> State:
        """Return the source's gamma and beta, and an optimizer that has seen nothing."""
        affine = {name: self._network.tensors[name] for name in self.adapts}
        return {**affine, **adam_start(affine)}

    def adapt_batch(self, state: State, windows: Tensor) -> tuple[State, Step]:
        """Answer with the statistics of this batch, then take one step; what is not finite changes nothing."""
        affine = {name: state[name].detach().requires_grad_() for name in self.adapts}
        with torch.enable_grad():
            logits = self._network.forward(windows, affine, by_batch).logits
            loss = entropies(logits).mean()  # (1)
            gradients = gradients_of(loss, affine)
        probabilities = torch.softmax(logits.detach(), dim=1)
        if not all_finite((loss, *gradients.values())):
            return state, Step(probabilities)
        return adam_step(affine, gradients, state, self._learning_rate), Step(  # (2)
            probabilities, updates=1, selected=len(windows)
        )
