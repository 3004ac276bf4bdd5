"""Causal exponential smoothing of the source's answers. Nothing is adapted.

On recordings in which a class lasts, yesterday's answer is evidence about today's. This is what LAME and other methods
that lean on neighbours gain there, for one vector per device; a method that gains less than this gains nothing.

    (1) s_i = r s_{i-1} + p_i,  s_0 = 0,  r = 2^(-1 / half life)
    (2) answer_i = s_i / sum_k s_ik

s needs no count beside it: its sum is the weight of the windows so far, so the first answer is the source's own.
"""

import math

import torch
from torch import Tensor

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.method import SourceContext, State, Step
from acclimate.adaptation.model.network import Network

__all__ = ["Smoothing"]


class Smoothing:
    """Configure smoothing.

    Args:
        context: The source; only its model is used.
        half_life_windows: Windows after which an answer counts half, above 0. Raising it holds on to a class longer:
            steadier, and later to notice a change.

    Raises:
        ConfigError: The half-life is out of range.
    """

    adapts: tuple[str, ...] = ()
    stateless = False

    def __init__(self, context: SourceContext, half_life_windows: float = 2.0) -> None:
        if not (math.isfinite(half_life_windows) and half_life_windows > 0):
            raise ConfigError(f"half_life_windows: expected a finite number above 0, got {half_life_windows}")
        self._network = Network(context.model)
        self._decay = 0.5 ** (1.0 / half_life_windows)

    def reset(self) -> State:
        """Return s_0, (K,)."""
        return {"sum": torch.zeros(self._network.classes)}

    @torch.no_grad()
    def adapt_batch(self, state: State, windows: Tensor) -> tuple[State, Step]:
        """Answer each window from those up to it, so that the size of a batch does not matter."""
        p = torch.softmax(self._network.forward(windows).logits, dim=1)  # (n, K)
        kept, sums = state["sum"], []
        for row in p:
            kept = torch.add(row, kept, alpha=self._decay)  # (1)
            sums.append(kept)
        weighted = torch.stack(sums)  # (n, K)
        return {"sum": kept}, Step(weighted / weighted.sum(dim=1, keepdim=True), updates=1, selected=len(p))  # (2)
