"""The distance of a tensor from its anchor, and the way back into a ball around it.

    (1) MARS   n_r = sum over all but the first dimension of |c|   rows move each for themselves
    (2) L2     n = ||c||_F                                         one number for the tensor
    (3) W = W0 + min(1, gamma / n) c,  c = W~ - W0

Rows are output channels. A vector (bias, gamma, beta) is one block with an L1 norm, as in the code of FTP, whose sum
over no dimensions torch reads as a sum over all.
"""

from typing import Literal

from torch import Tensor

__all__ = ["NORM_FLOOR", "Norm", "deviation_norms", "into_ball"]

Norm = Literal["mars", "l2"]

NORM_FLOOR = 1e-8  # added to each norm, and the smallest radius: nothing divides by zero


def deviation_norms(deviation: Tensor, norm: Norm = "mars") -> Tensor:
    """Return the norms of a deviation c, shaped to divide it: (O, 1, ...) per row, or all ones for the whole: (1), (2).

    >>> import torch
    >>> deviation_norms(torch.tensor([[1.0, -2.0], [0.0, 3.0]])).flatten().tolist()
    [3.0, 3.0]
    >>> deviation_norms(torch.tensor([1.0, -2.0, 3.0])).tolist()
    [6.0]
    """
    whole = tuple(range(deviation.dim()))
    if norm == "l2":
        return deviation.square().sum(dim=whole, keepdim=True).sqrt_().add_(NORM_FLOOR)
    rest = whole[1:] if deviation.dim() > 1 else whole
    return deviation.abs().sum(dim=rest, keepdim=True).add_(NORM_FLOOR)


def into_ball(anchor: Tensor, deviation: Tensor, norms: Tensor, radius: Tensor) -> Tensor:
    """Return the point of the ball on the way from the anchor to anchor + deviation: (3).

    >>> import torch
    >>> c = torch.tensor([[3.0, 1.0], [0.5, 0.5]])
    >>> into_ball(torch.zeros(2, 2), c, deviation_norms(c), torch.tensor(2.0)).tolist()
    [[1.5, 0.5], [0.5, 0.5]]
    """
    return anchor + (radius / norms).clamp(max=1) * deviation
