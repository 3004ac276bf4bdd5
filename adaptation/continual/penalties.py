"""Penalties and projections of the gradient that keep what was learned before: EWC, LwF, A-GEM.

    (1) EWC    lambda / 2 sum_i F_i (theta_i - theta*_i)^2,  F_i = mean of (d ln p(y | x) / d theta_i)^2, per window
    (2) LwF    T^2 KL(softmax(z_old / T) || softmax(z_new / T)) on windows without labels
    (3) A-GEM  g <- g - (<g, g_ref> / <g_ref, g_ref>) g_ref  where <g, g_ref> < 0,  g_ref: of remembered windows

Kirkpatrick et al., PNAS 2017; Li and Hoiem, ECCV 2016; Chaudhry et al., ICLR 2019. (1) takes the gradient of each
window alone: the square of a batch's mean gradient, as some libraries have it, is smaller by about the batch's size.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["agem", "ewc", "fisher", "lwf"]

_FLOOR = 1e-20


def fisher(model: nn.Module, windows: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return F of every parameter, by name: (1).

    Args:
        model: The network in evaluation mode, at theta*.
        windows: (n, C, L), n at least 1.
        labels: (n,).
    """
    named = {name: value for name, value in model.named_parameters() if value.requires_grad}
    total = {name: torch.zeros_like(value) for name, value in named.items()}
    for window, label in zip(windows, labels, strict=True):
        loss = nn.functional.cross_entropy(model(window[None]), label[None])
        for name, gradient in zip(named, torch.autograd.grad(loss, list(named.values())), strict=True):
            total[name] += gradient.square()
    return {name: value / len(windows) for name, value in total.items()}


def ewc(
    parameters: Mapping[str, Tensor], anchor: Mapping[str, Tensor], information: Mapping[str, Tensor], strength: float
) -> Tensor:
    """Return the penalty, a scalar: (1).

    Args:
        parameters: Live, by name.
        anchor: theta*.
        information: F.
        strength: lambda, 0 or more; raising it keeps closer to the anchor where that matters.
    """
    terms = [(information[name] * (value - anchor[name]).square()).sum() for name, value in parameters.items()]
    return strength / 2 * torch.stack(terms).sum()


def lwf(new: Tensor, old: Tensor, temperature: float = 2.0) -> Tensor:
    """Return the divergence of new logits (n, K) from old ones, a scalar in nats: (2).

    The factor T^2 keeps the gradient's size when T is raised.
    """
    target = torch.softmax(old / temperature, dim=1)
    log_new = torch.log_softmax(new / temperature, dim=1)
    return temperature**2 * nn.functional.kl_div(log_new, target, reduction="batchmean")


def agem(gradient: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the gradient without what would raise the loss on remembered windows, both by parameter's name: (3).

    >>> found = agem({"w": torch.tensor([1.0, -1.0])}, {"w": torch.tensor([0.0, 2.0])})
    >>> found["w"].tolist()
    [1.0, 0.0]
    """
    dot = torch.stack([(gradient[name] * reference[name]).sum() for name in gradient]).sum()
    if dot >= 0:
        return dict(gradient)
    length = torch.stack([value.square().sum() for value in reference.values()]).sum()
    return {name: value - dot / (length + _FLOOR) * reference[name] for name, value in gradient.items()}
