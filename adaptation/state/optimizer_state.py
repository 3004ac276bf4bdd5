"""A torch optimizer's state as flat named tensors, so that it saves with the rest of a learner's state."""

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["kept", "restore"]


def kept(optimizer: torch.optim.Optimizer, named: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Return an optimizer's state of each parameter, named ``kind/parameter/key``; numbers are scalars of 64 bits."""
    return {
        f"{kind}/{name}/{key}": _as_tensor(value)
        for name, parameter in named.items()
        for key, value in optimizer.state[parameter].items()
    }


def _as_tensor(value: Tensor | float) -> Tensor:
    if isinstance(value, Tensor):
        return value.clone()
    return torch.tensor(value, dtype=torch.int64 if isinstance(value, int) else torch.float64)


def restore(
    optimizer: torch.optim.Optimizer, named: Mapping[str, Tensor], state: Mapping[str, Tensor], kind: str
) -> None:
    """Undo `kept`: torch's own counts are tensors of 32 bits, so those of 64 bits are ours."""
    for name, parameter in named.items():
        prefix = f"{kind}/{name}/"
        for key, value in state.items():
            if key.startswith(prefix):
                number = value.dim() == 0 and value.dtype in (torch.int64, torch.float64)
                optimizer.state[parameter][key.removeprefix(prefix)] = value.item() if number else value.clone()
