"""A generator's weights in fewer bits, for shipping: 16-bit floats, or 8-bit integers with a scale per row.

The result is a generator with the rounded weights, so compression is judged as any method is. With w_i a row of a
matrix (all but the first axis joined),

    int8    s_i = max_j |w_ij| / 127,   w_ij ~ s_i round(w_ij / s_i),   s_i in 32 bits; vectors stay 16-bit floats
    fp16    the nearest half-precision number
"""

from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor

from acclimate.adaptation.generators.generator import Generator

__all__ = ["PRECISIONS", "Precision", "compressed", "stored_bytes"]

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
_LARGEST = 127


def compressed(generator: Generator, precision: Precision) -> Generator:
    """Return the generator with its weights rounded to this precision, and read back."""
    return replace(generator, weights={name: _rounded(value, precision) for name, value in generator.weights.items()})


def stored_bytes(generator: Generator, precision: Precision) -> int:
    """Return how many bytes its weights take.

    >>> import torch
    >>> from acclimate.adaptation.generators.mgg import MggSettings
    >>> from acclimate.adaptation.generators.valid_range import ValidRange
    >>> small = Generator(MggSettings(), {"w": torch.zeros(3, 4), "b": torch.zeros(3)}, ValidRange(1.0, 1.0))
    >>> [stored_bytes(small, precision) for precision in ("fp32", "fp16", "int8")]
    [60, 30, 30]
    """
    total = 0
    for value in generator.weights.values():
        if precision == "int8" and value.dim() > 1:
            total += value.numel() + 4 * len(value)
        else:
            total += value.numel() * (4 if precision == "fp32" else 2)
    return total


def _rounded(value: Tensor, precision: Precision) -> Tensor:
    if precision == "fp32":
        return value
    if precision == "fp16" or value.dim() < 2:
        return value.half().float()
    rows = value.flatten(1)
    scale = (rows.abs().amax(dim=1, keepdim=True) / _LARGEST).clamp_min(torch.finfo(torch.float32).tiny)
    return ((rows / scale).round() * scale).reshape(value.shape)
