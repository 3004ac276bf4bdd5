"""Reliability filter: learn only from windows that the model is sure of.

After EATA and SAR (Niu et al., ICML 2022 and ICLR 2023): a window is reliable if

    (1) H(p) < share * ln K,  H(p) = -sum_k p_k ln p_k

with a share of 0.4. The bound grows with the number of classes, so one setting serves 2 and 100 of them.
"""

import math

import torch
from torch import Tensor

from acclimate.adaptation.errors import ConfigError

__all__ = ["RELIABLE_SHARE", "reliable"]

RELIABLE_SHARE = 0.4


def reliable(probabilities: Tensor, share: float = RELIABLE_SHARE) -> Tensor:
    """Tell which rows (n, K) may be learned from: a mask (n,). A row that is not finite is not reliable.

    Args:
        probabilities: Answers, rows sum to 1.
        share: The share of ln K, above 0 and at most 1. Raising it lets more doubtful windows in.

    Raises:
        ConfigError: The share is out of range.

    >>> reliable(torch.tensor([[0.95, 0.05], [0.6, 0.4]])).tolist()
    [True, False]
    """
    if not 0 < share <= 1:
        raise ConfigError(f"reliable share: expected above 0 and at most 1 (of ln K), got {share}")
    entropy: Tensor = torch.special.entr(probabilities).sum(dim=1)  # (n,)
    mask: Tensor = entropy < share * math.log(probabilities.shape[1])  # (1)
    return mask
