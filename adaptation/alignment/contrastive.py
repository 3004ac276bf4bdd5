"""The two contrastive losses of cross-task alignment.

With rows normalised to length 1:

    (1) self-supervised  S = [z1; z2] [z1; z2]^T / tau_u without its diagonal; the other view is the right answer
        L_ssl = -mean_i ln softmax(S_i)[view of i]                             Chen et al., SimCLR, ICML 2020
    (2) alignment        L = a b^T / tau_a;  t = 0..B-1
        L_align = (CE(L, t) + CE(L^T, t)) / 2                                  Radford et al., CLIP, ICML 2021
    (3) with labels, pairs of one class do not count as negatives in (2)

(3) matters where classes are few: of 128 windows of 4 classes 31 would be pushed away from their like.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

__all__ = ["alignment_loss", "ssl_loss"]


def ssl_loss(first: Tensor, second: Tensor, temperature: float = 0.2) -> Tensor:
    """Return L_ssl of projections (B, d) of two views, a scalar in nats: (1).

    Args:
        first, second: Row i of both is the same window; B at least 2.
        temperature: tau_u, above 0; raising it spreads what is asked over more negatives.
    """
    z = normalize(torch.cat([first, second]), dim=1)  # (2B, d)
    similar = z @ z.T / temperature
    similar = similar.masked_fill(torch.eye(len(z), dtype=torch.bool), -torch.inf)
    return cross_entropy(similar, torch.arange(len(z)).roll(len(first)))


def alignment_loss(features: Tensor, taught: Tensor, temperature: float = 0.1, labels: Tensor | None = None) -> Tensor:
    """Return L_align, a scalar in nats: (2), (3).

    Args:
        features: (B, F) of the self-supervised encoder.
        taught: (B, F) of the classifier's encoder, which is the teacher: no gradient reaches it.
        temperature: tau_a, above 0.
        labels: (B,) for (3); None takes every other window as a negative.
    """
    similar = normalize(features, dim=1) @ normalize(taught.detach(), dim=1).T / temperature  # (B, B)
    if labels is not None:
        alike = (labels[:, None] == labels) & ~torch.eye(len(labels), dtype=torch.bool)
        similar = similar.masked_fill(alike, -torch.inf)
    target = torch.arange(len(similar))
    return (cross_entropy(similar, target) + cross_entropy(similar.T, target)) / 2
