"""Randomness as part of a device's state: a torch generator goes in and out as a tensor of bytes.

A device that is saved and loaded in the middle of its stream then draws what it would have drawn.
"""

import torch
from torch import Tensor

__all__ = ["random_start", "resumed"]


def random_start(seed: int) -> Tensor:
    """Return the state of a generator (5056,) with this seed; torch's global one is not touched.

    >>> torch.equal(random_start(3), random_start(3)), torch.equal(random_start(3), random_start(4))
    (True, False)
    """
    return torch.Generator().manual_seed(seed).get_state()


def resumed(state: Tensor) -> torch.Generator:
    """Return a generator that goes on where `state` stands; its own ``get_state()`` is the next state."""
    generator = torch.Generator()
    generator.set_state(state)
    return generator
