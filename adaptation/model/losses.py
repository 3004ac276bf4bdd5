"""Entropy, in nats, from logits: the loss and the filter of most methods."""

import torch
from torch import Tensor

__all__ = ["entropies"]


def entropies(logits: Tensor) -> Tensor:
    """Return H(softmax(logits)) of each row (n, K), shape (n,), in nats, 0 to ln K.

    >>> [round(h, 4) for h in entropies(torch.tensor([[0.0, 0.0], [100.0, 0.0]])).tolist()]
    [0.6931, 0.0]
    """
    log_p = torch.log_softmax(logits, dim=1)
    return -(log_p.exp() * log_p).sum(dim=1)
