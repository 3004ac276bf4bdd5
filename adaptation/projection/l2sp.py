"""L2-SP: a penalty on the distance to the anchor, the baseline of everything here.

After "Explicit Inductive Bias for Transfer Learning with Convolutional Networks", Li et al., ICML 2018:

    (1) alpha / 2 ||w - w0||^2 + beta / 2 ||w_new||^2     w_new: parameters without an anchor, such as a new head

alpha 0.1 and beta 0.01 are where sweeps begin (1e-3 to 1).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["l2_sp"]


def l2_sp(
    parameters: Mapping[str, Tensor], anchor: Mapping[str, Tensor], alpha: float = 0.1, beta: float = 0.01
) -> Tensor:
    """Return the penalty, a scalar to add to a loss: (1).

    Args:
        parameters: Live, by name.
        anchor: The anchors of all of them or some; the others are new.
        alpha: 0 or more; raising it keeps closer to the anchor.
        beta: 0 or more; of the new ones.

    >>> float(l2_sp({"w": torch.tensor([3.0]), "head": torch.tensor([2.0])}, {"w": torch.tensor([1.0])}, 1.0, 0.5))
    3.0
    """
    terms = [
        alpha / 2 * (value - anchor[name]).square().sum() if name in anchor else beta / 2 * value.square().sum()
        for name, value in parameters.items()
    ]
    return torch.stack(terms).sum() if terms else torch.zeros(())
