"""SGD and Adam as functions of a flat state, so that a device's optimizer saves and resets with the rest of its state.

The formulas are torch's own (`torch.optim.SGD` without nesterov, `torch.optim.Adam`); a test holds them together.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

__all__ = ["adam_start", "adam_step", "all_finite", "gradients_of", "sgd_start", "sgd_step"]

Tensors = Mapping[str, Tensor]


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Say whether a step may be taken on these: a loss and its gradients. A sum that overflows counts as not finite.

    >>> all_finite([torch.ones(2), torch.zeros(())]), all_finite([torch.ones(2), torch.tensor([0.0, torch.nan])])
    (True, False)
    """
    return bool(torch.isfinite(torch.stack([tensor.detach().sum() for tensor in tensors])).all())


def gradients_of(loss: Tensor, parameters: Tensors) -> dict[str, Tensor]:
    """Return d loss / d parameter by name; zeros for a parameter that the loss does not depend on."""
    found = torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)
    return dict(zip(parameters, found, strict=True))


def sgd_start(parameters: Tensors) -> dict[str, Tensor]:
    """Return the optimizer's part of the state: a momentum buffer per parameter, named ``momentum/NAME``."""
    return {f"momentum/{name}": torch.zeros_like(value) for name, value in parameters.items()}


def sgd_step(
    parameters: Tensors, gradients: Tensors, state: Tensors, learning_rate: float, momentum: float = 0.9
) -> dict[str, Tensor]:
    """Return the parameters and momentum buffers after one step: b = momentum b + g, theta = theta - lr b."""
    new = {}
    for name, value in parameters.items():
        buffer = momentum * state[f"momentum/{name}"] + gradients[name]
        new[f"momentum/{name}"] = buffer
        new[name] = value.detach() - learning_rate * buffer
    return new


def adam_start(parameters: Tensors) -> dict[str, Tensor]:
    """Return the optimizer's part of the state: moments ``m/NAME`` and ``v/NAME``, and the count ``adam_steps``."""
    start = {f"{moment}/{name}": torch.zeros_like(value) for name, value in parameters.items() for moment in "mv"}
    return {**start, "adam_steps": torch.zeros((), dtype=torch.int64)}


def adam_step(
    parameters: Tensors,
    gradients: Tensors,
    state: Tensors,
    learning_rate: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> dict[str, Tensor]:
    """Return the parameters, moments and count after one step; ``weight_decay`` is added to the gradient (L2)."""
    steps = state["adam_steps"] + 1
    count = int(steps)
    new: dict[str, Tensor] = {"adam_steps": steps}
    for name, value in parameters.items():
        value = value.detach()
        gradient = gradients[name] + weight_decay * value if weight_decay else gradients[name]
        m = betas[0] * state[f"m/{name}"] + (1 - betas[0]) * gradient
        v = betas[1] * state[f"v/{name}"] + (1 - betas[1]) * gradient * gradient
        new[f"m/{name}"], new[f"v/{name}"] = m, v
        m_hat, v_hat = m / (1 - betas[0] ** count), v / (1 - betas[1] ** count)
        new[name] = value - learning_rate * m_hat / (v_hat.sqrt() + eps)
    return new
