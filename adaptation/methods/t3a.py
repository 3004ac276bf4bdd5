"""T3A: replace the classifier's rows by the mean directions of sure features. Nothing of the network changes.

After "Test-Time Classifier Adjustment Module for Model-Agnostic Domain Generalization", Iwasawa and Matsuo, NeurIPS
2021. The memory and its equations are in `acclimate.adaptation.methods.prototypes`; all windows of a batch are offered
to it before any is answered, so an answer may rest on the window's own feature, and on windows that follow it in its
batch.
The memory after a batch does not depend on how its windows were batched: features and entropies are those of
the source.
"""

import torch
from torch import Tensor

from acclimate.adaptation.method import SourceContext, State, Step
from acclimate.adaptation.methods.prototypes import admit, head_supports, prototype_logits
from acclimate.adaptation.model.network import Network

__all__ = ["T3a"]


class T3a:
    """Configure T3A.

    Args:
        context: The source; only its model is used.
        per_class: M, supports per class, at least 1. Raising it averages more features, less sure ones among them, and
            follows the device further; the head's own rows are outweighed sooner.

    Raises:
        ConfigError: M is out of range, or the network lacks a BatchNorm or a linear layer.
    """

    adapts: tuple[str, ...] = ()
    stateless = False

    def __init__(self, context: SourceContext, per_class: int = 20) -> None:
        self._network = Network(context.model)
        self._start = head_supports(self._network, per_class)

    def reset(self) -> State:
        """Return a memory of the head's rows."""
        return dict(self._start)

    @torch.no_grad()
    def adapt_batch(self, state: State, windows: Tensor) -> tuple[State, Step]:
        """Offer the batch to the memory, then answer from it."""
        seen = self._network.forward(windows)
        state, entered = admit(state, seen.features, seen.logits)
        probabilities = torch.softmax(prototype_logits(state, seen.features), dim=1)
        return state, Step(probabilities, updates=int(entered > 0), selected=entered)
