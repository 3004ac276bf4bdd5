"""The shared part of optimizers near an anchor: where it is kept, which tensors have none, what counts as broken.

Anchors are part of torch's parameter groups, beside the learning rate: they follow through ``state_dict``, ``deepcopy``
and added groups. torch patches the ``step`` of each optimizer class it makes, so a step that calls its parent's would
run a user's hooks twice; `plain_step` is the parent's without.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import isfinite
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from acclimate.adaptation.errors import ConfigError

__all__ = ["anchored", "configure", "plain_step", "set_anchors", "without_broken"]

Group = dict[str, Any]


def set_anchors(group: Group) -> None:
    """Anchor a new group where it is now, unless it brought its own ``anchor``: a tensor or None per parameter.

    Raises:
        ConfigError: The anchors do not fit the parameters.
    """
    parameters: list[Tensor] = group["params"]
    given: list[Tensor | None] = list(group.get("anchor") or parameters)
    shapes = [None if tensor is None else tensor.shape for tensor in given]
    if len(given) != len(parameters) or any(
        shape not in (None, parameter.shape) for shape, parameter in zip(shapes, parameters, strict=True)
    ):
        raise ConfigError(
            f"anchor: expected a tensor or None for each of {[tuple(p.shape) for p in parameters]}, got {shapes}"
        )
    group["anchor"] = [
        None if tensor is None else tensor.detach().clone().to(parameter)
        for tensor, parameter in zip(given, parameters, strict=True)
    ]


def configure(optimizer: Optimizer, settings: Mapping[str, Any], exclude: Iterable[str]) -> None:
    """Give an optimizer's groups, those of now and of later, its settings and a count ``skipped`` of broken gradients.

    Parameters that are excluded by name lose their anchor: a new head starts from nothing worth keeping.

    Raises:
        ConfigError: A name is not among the parameters, or they have no names.
    """
    optimizer.defaults.update(settings, skipped=0)
    wanted = set(exclude)
    for group in optimizer.param_groups:
        for key in (*settings, "skipped"):
            group.setdefault(key, optimizer.defaults[key])
        names = group.get("param_names", [""] * len(group["params"]))
        group["anchor"] = [None if name in wanted else old for name, old in zip(names, group["anchor"], strict=True)]
        wanted -= set(names)
    if wanted:
        raise ConfigError(
            f"exclude: no parameter is called {sorted(wanted)}; give names of model.named_parameters(), and pass these"
        )


def anchored(group: Group) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield each parameter of a group that has a gradient and an anchor, with gradient and anchor."""
    for parameter, anchor in zip(group["params"], group["anchor"], strict=True):
        if anchor is not None and parameter.grad is not None:
            yield parameter, parameter.grad, anchor


@contextmanager
def without_broken(optimizer: Optimizer) -> Iterator[int]:
    """Hide gradients that are not finite from a step, and give their number; these parameters stay as they are."""
    gradients = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if not gradients:
        yield 0
        return
    sizes = torch.stack(torch._foreach_norm([parameter.grad for parameter in gradients], ord=1)).tolist()
    hidden = [
        (parameter, parameter.grad) for parameter, size in zip(gradients, sizes, strict=True) if not isfinite(size)
    ]
    for parameter, _ in hidden:
        parameter.grad = None
    try:
        yield len(hidden)
    finally:
        for parameter, gradient in hidden:
            parameter.grad = gradient


def plain_step(optimizer_class: type[Optimizer]) -> Callable[[Optimizer], object]:
    """Return the ``step`` of torch's optimizer class without the hooks that torch puts around it."""
    step: Callable[[Optimizer], object] = optimizer_class.step
    return getattr(step, "__wrapped__", step) if getattr(step, "hooked", False) else step
