"""Canary set: stored source windows with known labels that an updated model must still answer.

    (1) drop = accuracy of the source - accuracy of the update, on the canary set     at most 2 points
    (2) KL = mean_i sum_k p_source ln(p_source / p_update)                            at most tau nats

It sees a collapse at once, without a label of a target. It is blind to an update that forgot nothing and learned
something wrong, and it must not judge methods that replace running statistics: statistics that are right for a moved
sensor are wrong for the source's windows. The limits, 2 points and tau, are RECONSTRUCTED.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.method import SourceContext

__all__ = ["CanaryCheck", "CanarySet", "check_canary", "choose_canary"]

SMALLEST, LARGEST = 64, 256


@dataclass(frozen=True, eq=False)
class CanarySet:
    """Windows (m, C, L), their labels (m,) and the source's answers to them (m, K)."""

    windows: Tensor
    labels: Tensor
    probabilities: Tensor


@dataclass(frozen=True)
class CanaryCheck:
    """The verdict: accuracy drop of (1), negative for a gain; divergence of (2) in nats; whether both are in bounds."""

    accuracy_drop: float
    divergence_nats: float
    passed: bool


def choose_canary(context: SourceContext, size: int = 128) -> CanarySet:
    """Choose the canary set from the source's windows: always the same, classes as equal as they allow.

    Args:
        context: The source; where it has fewer windows than ``size``, all of them are taken.
        size: 64 to 256. Raising it makes the accuracy drop finer and each check dearer.

    Raises:
        ConfigError: The size is out of range.
    """
    if not SMALLEST <= size <= LARGEST:
        raise ConfigError(f"canary set: expected {SMALLEST} to {LARGEST} windows, got {size}")
    labels = context.labels.long()
    # The r-th window of each class comes before the (r+1)-th of any: a round-robin over the classes.
    rank = torch.empty_like(labels)
    for label in sorted(set(labels.tolist())):
        members = torch.nonzero(labels == label).flatten()
        rank[members] = torch.arange(len(members))
    chosen = torch.sort(torch.argsort(rank, stable=True)[:size]).values
    windows = context.windows[chosen]
    with torch.no_grad():
        probabilities = torch.softmax(context.model(windows), dim=1)
    return CanarySet(windows, labels[chosen], probabilities)


def check_canary(
    canary: CanarySet, probabilities: Tensor, accuracy_drop: float = 0.02, divergence_nats: float = 0.5
) -> CanaryCheck:
    """Compare an updated model's answers (m, K) with the source's; answers that are not finite never pass.

    Args:
        canary: The set.
        probabilities: The updated model's answers to its windows, in order.
        accuracy_drop: Largest loss of accuracy, as a share: 0.02 is 2 points. Raising it lets more be forgotten.
        divergence_nats: Largest mean divergence tau. Raising it lets answers move farther.
    """
    if not bool(torch.isfinite(probabilities).all()):
        return CanaryCheck(1.0, float("inf"), passed=False)
    source, new = canary.probabilities.double(), probabilities.double()
    right = [(rows.argmax(dim=1) == canary.labels).double().mean().item() for rows in (source, new)]
    tiny = torch.finfo(torch.float32).tiny  # a float32 softmax underflows to 0; the divergence stays finite
    terms = source * (source.clamp_min(tiny).log() - new.clamp_min(tiny).log())
    drop, divergence = right[0] - right[1], max(0.0, terms.sum(dim=1).mean().item())
    # The tolerance is for rounding: 0.1 - 0.08 is above 0.02 in binary.
    return CanaryCheck(drop, divergence, drop <= accuracy_drop + 1e-9 and divergence <= divergence_nats)
