"""LAME: windows of a batch with close features shall have close answers. The model is not touched, nothing is kept.

After "Parameter-free Online Test-time Adaptation", Boudiaf et al., CVPR 2022. With W the affinity of the features of a
batch, each of unit length, iterate until the energy E settles:

    (1) Y <- softmax(ln p + W Y),  Y_0 = p
    (2) E = sum_ik Y_ik (ln Y_ik - ln p_ik - (W Y)_ik)

    rbf   W_ij = exp(-|z_i - z_j|^2 / (2 s^2)), s = mean over i of the distance to the k-th nearest, i itself the first;
          the diagonal of ones is kept
    knn   W_ij = 1 where j is one of the k nearest of i, i itself not

The authors' code takes ln(p + 1e-10), so that a wrong answer that is quite sure can still be outvoted; so does this. A
batch of one has no neighbours and gets the source's answer. Gains on streams in which a class lasts, loses elsewhere.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.method import SourceContext, State, Step
from acclimate.adaptation.model.network import Network

__all__ = ["Lame", "affinity", "settle"]

_FLOOR = 1e-10
_STEPS = 100
_TOLERANCE = 1e-8
_SMALLEST_SCALE = 1e-12  # all features equal: distances 0 of scale 0, an affinity of 1


def affinity(features: Tensor, kind: Literal["rbf", "knn"], neighbours: int) -> Tensor:
    """Return W (n, n) of features (n, F), n at least 2."""
    unit = nn.functional.normalize(features, dim=1)
    # The quick way through a matrix product leaves equal features a thousandth apart.
    distances = torch.cdist(unit, unit, compute_mode="donot_use_mm_for_euclid_dist")  # (n, n)
    if kind == "rbf":
        nearest = distances.topk(min(neighbours, len(unit)), dim=1, largest=False).values
        scale = nearest[:, -1].mean().clamp(min=_SMALLEST_SCALE)
        return torch.exp(-0.5 * (distances / scale).square())
    others = distances.fill_diagonal_(torch.inf)
    chosen = others.topk(min(neighbours, len(unit) - 1), dim=1, largest=False).indices
    return torch.zeros_like(others).scatter_(1, chosen, 1.0)


def settle(log_p: Tensor, weights: Tensor) -> Tensor:
    """Return Y (n, K) of ln p (n, K) and W (n, n): (1) until (2) changes by less than 1e-8 of itself, or 100 steps."""
    y = torch.softmax(log_p, dim=1)
    energy = torch.inf
    for _ in range(_STEPS):
        exponent = log_p + weights @ y
        log_y = torch.log_softmax(exponent, dim=1)  # (1)
        y = log_y.exp()
        before, energy = energy, float((y * (log_y - exponent)).sum())  # (2)
        if abs(energy - before) <= _TOLERANCE * abs(before) < torch.inf:
            break
    return y


class Lame:
    """Configure LAME.

    Args:
        context: The source; only its model is used.
        kind: The kind of affinity, ``rbf`` or ``knn``.
        neighbours: k, at least 1. Raising it ties a window to more others.

    Raises:
        ConfigError: A setting is out of range, or the network lacks a BatchNorm or a linear layer.
    """

    adapts: tuple[str, ...] = ()
    stateless = False

    def __init__(self, context: SourceContext, kind: Literal["rbf", "knn"] = "rbf", neighbours: int = 5) -> None:
        if kind not in ("rbf", "knn"):
            raise ConfigError(f"kind: expected rbf or knn, got {kind!r}")
        if neighbours < 1:
            raise ConfigError(f"neighbours: expected at least 1, got {neighbours}")
        self._network = Network(context.model)
        self._kind: Literal["rbf", "knn"] = kind
        self._neighbours = neighbours

    def reset(self) -> State:
        """Return nothing."""
        return {}

    @torch.no_grad()
    def adapt_batch(self, state: State, windows: Tensor) -> tuple[State, Step]:
        """Answer the windows of a batch together."""
        seen = self._network.forward(windows)
        p = torch.softmax(seen.logits, dim=1)
        if len(windows) == 1:
            return state, Step(p)
        return state, Step(settle(torch.log(p + _FLOOR), affinity(seen.features, self._kind, self._neighbours)))
