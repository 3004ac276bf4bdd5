"""A tiny convolutional problem in float64, given by formulas, on which optimizers are compared step by step."""

import math

import torch
from torch import Tensor

__all__ = ["loss_at", "parameters", "take_steps"]


def _waves(count: int, phase: float, scale: float) -> Tensor:
    return torch.tensor([scale * math.sin(1.7 * i + phase) for i in range(count)], dtype=torch.float64)


def parameters() -> dict[str, Tensor]:
    """Return three leaves that ask for gradients: (3, 2, 5), (3,) and (4, 3)."""
    values = {
        "conv.weight": _waves(30, 0.1, 0.3).reshape(3, 2, 5),
        "conv.bias": _waves(3, 0.2, 0.1),
        "head.weight": _waves(12, 0.3, 0.4).reshape(4, 3),
    }
    return {name: value.requires_grad_() for name, value in values.items()}


def loss_at(step: int, p: dict[str, Tensor]) -> Tensor:
    """Return the cross-entropy on the batch of a step from 1; six waves of two channels, four classes.

    A class is a frequency, phases move with the step, and classes change places after step 12.
    """
    classes = [0, 1, 2, 3, 0, 1]
    rows = [
        [[math.sin((1 + k) * (0.4 + 0.3 * c) * t + 0.7 * i + 0.9 * step) for t in range(9)] for c in range(2)]
        for i, k in enumerate(classes)
    ]
    hidden = torch.tanh(
        torch.nn.functional.conv1d(torch.tensor(rows, dtype=torch.float64), p["conv.weight"], p["conv.bias"])
    )
    labels = (torch.tensor(classes) + (step > 12)) % 4
    return torch.nn.functional.cross_entropy(hidden.square().mean(2) @ p["head.weight"].T, labels)


def take_steps(optimizer: torch.optim.Optimizer, p: dict[str, Tensor], first: int, last: int) -> None:
    """Take steps ``first`` to ``last``, both included."""
    for step in range(first, last + 1):
        optimizer.zero_grad()
        loss_at(step, p).backward()
        optimizer.step()
