"""The source model as it is: the line that every other method is measured against."""

import torch
from torch import Tensor

from acclimate.adaptation.method import SourceContext, State, Step
from acclimate.adaptation.model.network import Network

__all__ = ["Unadapted"]


class Unadapted:
    """Configure the source model.

    Args:
        context: The source; only its model is used.

    Raises:
        ConfigError: The network has no BatchNorm layer.
    """

    adapts: tuple[str, ...] = ()
    stateless = True

    def __init__(self, context: SourceContext) -> None:
        self._network = Network(context.model)

    def reset(self) -> State:
        """Return nothing."""
        return {}

    @torch.no_grad()
    def adapt_batch(self, state: State, windows: Tensor) -> tuple[State, Step]:
        """Answer each window by itself."""
        return state, Step(torch.softmax(self._network.forward(windows).logits, dim=1))
