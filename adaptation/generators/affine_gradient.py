"""The view of both generators: a batch at a network's gamma and beta, and the gradient of a loss without labels.

BatchNorm keeps the source's running statistics, so that a batch of one class, which is what a sensor sends, does not
move what its windows are normalised by. With gamma_l, beta_l of layer l and its input x_l (n, C_l, ...):

    (1) y_l = gamma_l (x_l - mu_l) / sqrt(var_l + eps) + beta_l
    (2) F   = mean over time of (y_1, ..., y_L)          (n, D), D channels in all layers
    (3) L   = mean_i H(softmax(logits_i)) + w / D sum_j [(mean_i F_ij - mean_s,j)^2 + (std_i F_ij - std_s,j)^2]
    (4) g   = dL / d (gamma_1, beta_1, ..., gamma_L, beta_L)

H in nats, std with n - 1 and left away for one window, mean_s and std_s from source windows. (3) is the loss of MGTTA
(AAAI 2025) with the features of its transformer replaced by (2): RECONSTRUCTED. The published strength, 0.4 / 64 on a
sum over 9216 features beside entropies of 1000 classes, is w = 57.6 ln K / ln 1000 for K classes. w = 0 is the entropy
alone, which is what GeneralizeFormer's gradients come from.

Several streams go through the network at once, each with its own gamma and beta (`groups`): meta-training needs it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from acclimate.adaptation.model.groups import group_statistics
from acclimate.adaptation.model.losses import entropies
from acclimate.adaptation.model.network import Layer, Network, Normalise, Pass
from acclimate.adaptation.model.robust import spread_rows

__all__ = [
    "Seen",
    "SourceFeatures",
    "affine_gradient",
    "batch_distance",
    "discrepancy_weight",
    "join",
    "logits_with",
    "look",
    "loss_without_labels",
    "source_features",
    "split",
]

_MOST_WINDOWS = 512
_PAPER_STRENGTH, _PAPER_CLASSES = 0.4 * 9216 / 64, 1000


@dataclass(frozen=True, eq=False)
class SourceFeatures:
    """Mean and standard deviation over source windows: of (2), (D,) each, and of the input of the head, (F,) each."""

    mean: Tensor
    std: Tensor
    head_mean: Tensor
    head_std: Tensor


@dataclass(frozen=True, eq=False)
class Seen:
    """The result of one pass over `groups` batches of n windows.

    Attributes:
        logits: (groups * n, K).
        features: (groups * n, F), input of the head.
        activations: (groups, n, D), (2).
        means, variances: Per layer (groups, C): batch statistics of x in source units, (mean - mu) / sqrt(var_l + eps)
            and (variance + eps) / (var_l + eps). Where a batch is one row without a time axis its variance is not
            known, and counts as the source's.
    """

    logits: Tensor
    features: Tensor
    activations: Tensor
    means: tuple[Tensor, ...]
    variances: tuple[Tensor, ...]


def discrepancy_weight(classes: int) -> float:
    """Return w of (3).

    >>> round(discrepancy_weight(1000), 1), round(discrepancy_weight(4), 1)
    (57.6, 11.6)
    """
    return _PAPER_STRENGTH * math.log(classes) / math.log(_PAPER_CLASSES)


def look(network: Network, windows: Tensor, affine: Mapping[str, Tensor], groups: int = 1) -> Seen:
    """Run windows (groups * n, C, L), group after group, with these gamma and beta: (1) and (2).

    Args:
        network: Source model.
        windows: Raw windows.
        affine: The parameters by name, (C,) or (groups, C) each, and the head's weight, (K, F) or (groups, K, F),
            where it is replaced as well; missing names keep the source's. Gradients flow into them.
        groups: Batches that are strangers to each other, of equal size.
    """
    activations, means, variances = [], [], []

    def rule(layer: Layer, x: Tensor) -> Tensor:
        spread = layer.var + layer.eps
        mean, var = group_statistics(x, groups) or (x.reshape(groups, -1), layer.var.expand(groups, -1))
        means.append((mean - layer.mean) * torch.rsqrt(spread))
        variances.append((var + layer.eps) / spread)
        y = _normalised(layer, x, groups)
        activations.append(y.flatten(2).mean(dim=2) if y.dim() > 2 else y)  # (2)
        return y

    passed = _pass(network, windows, affine, groups, rule)
    seen = torch.cat(activations, dim=1).reshape(groups, len(windows) // groups, -1)
    return Seen(passed.logits, passed.features, seen, tuple(means), tuple(variances))


def logits_with(network: Network, windows: Tensor, affine: Mapping[str, Tensor], groups: int = 1) -> Tensor:
    """Return the logits (groups * n, K) of `look`, measuring nothing, which takes less than half of the time."""
    return _pass(network, windows, affine, groups, lambda layer, x: _normalised(layer, x, groups)).logits


def _normalised(layer: Layer, x: Tensor, groups: int) -> Tensor:
    """Return (1) for x (groups * n, C, ...), with gamma and beta (C,) or (groups, C)."""
    tail = (1,) * (x.dim() - 2)
    scale = (layer.gamma * torch.rsqrt(layer.var + layer.eps)).reshape(-1, layer.mean.numel())  # (groups or 1, C)
    shift = layer.beta - layer.mean * scale
    if len(scale) > 1:
        scale, shift = (value.repeat_interleave(len(x) // groups, dim=0) for value in (scale, shift))
    return x * scale.reshape(*scale.shape, *tail) + shift.reshape(*scale.shape, *tail)


def _pass(network: Network, windows: Tensor, affine: Mapping[str, Tensor], groups: int, rule: Normalise) -> Pass:
    """Run the windows by this rule, and with the head's weight of each group where one is given."""
    norms = {name: value for name, value in affine.items() if name in network.affine}
    passed, head = network.forward(windows, norms, rule), affine.get(f"{network.head}.weight")
    if head is None:
        return passed
    logits = (passed.features.reshape(groups, len(windows) // groups, -1) @ head.mT).flatten(0, 1)
    bias = network.tensors.get(f"{network.head}.bias", torch.zeros((), device=logits.device))
    return Pass(logits + bias, passed.features)


def batch_distance(seen: Seen) -> tuple[Tensor, Tensor]:
    """Return mean part and variance part of `acclimate.adaptation.generators.valid_range`, (groups,) each."""
    mean = torch.stack([part.square().mean(dim=1) for part in seen.means]).mean(dim=0)
    variance = torch.stack([part.log().square().mean(dim=1) for part in seen.variances]).mean(dim=0)
    return mean, variance


@torch.no_grad()
def source_features(network: Network, windows: Tensor) -> SourceFeatures:
    """Measure source windows (m, C, L), m at least 2: at most 512 of them, evenly spread over stored order."""
    rows = spread_rows(np.arange(len(windows)), _MOST_WINDOWS)
    seen = look(network, windows[torch.from_numpy(rows)], {})
    activations, features = seen.activations[0], seen.features
    return SourceFeatures(activations.mean(dim=0), activations.std(dim=0), features.mean(dim=0), features.std(dim=0))


def loss_without_labels(seen: Seen, source: SourceFeatures, weight: float) -> Tensor:
    """Return (3) of each group, (groups,)."""
    groups, each, _ = seen.activations.shape
    loss = entropies(seen.logits).reshape(groups, each).mean(dim=1)
    if weight == 0.0:
        return loss
    away = (seen.activations.mean(dim=1) - source.mean).square().mean(dim=1)
    if each > 1:
        away = away + (seen.activations.std(dim=1) - source.std).square().mean(dim=1)
    return loss + weight * away


def affine_gradient(
    network: Network,
    windows: Tensor,
    affine: Mapping[str, Tensor],
    source: SourceFeatures,
    weight: float,
    groups: int = 1,
) -> tuple[Seen, dict[str, Tensor]]:
    """Return what a pass shows and (4) by name, in the shapes of ``affine``; neither has a history."""
    leaves = {name: value.detach().requires_grad_() for name, value in affine.items()}
    with torch.enable_grad():
        seen = look(network, windows, leaves, groups)
        loss = loss_without_labels(seen, source, weight).sum()  # groups are strangers: each gets its own gradient
        found = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    plain = Seen(
        seen.logits.detach(),
        seen.features.detach(),
        seen.activations.detach(),
        tuple(mean.detach() for mean in seen.means),
        tuple(variance.detach() for variance in seen.variances),
    )
    return plain, dict(zip(leaves, found, strict=True))


def join(affine: Mapping[str, Tensor]) -> Tensor:
    """Return all coordinates one after the other: (P,) from vectors (C,), (groups, P) from (groups, C)."""
    return torch.cat(list(affine.values()), dim=-1)


def split(coordinates: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return (..., P) as vectors by name, the inverse of `join`; only the widths of ``like`` matter.

    >>> parts = split(torch.arange(3.0), {"a": torch.ones(1), "b": torch.ones(2)})
    >>> {name: part.tolist() for name, part in parts.items()}
    {'a': [0.0], 'b': [1.0, 2.0]}
    """
    widths = [value.shape[-1] for value in like.values()]
    return dict(zip(like, torch.split(coordinates, widths, dim=-1), strict=True))
