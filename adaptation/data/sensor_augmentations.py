"""Small random changes of a window that leave its class alone: what sensors have in place of crops and colours.

CoTTA and RoTTA were written for images. Flips and rotations would change what a movement or a fault is, so these four
take their place; kinds and strengths are RECONSTRUCTED: our proposal, not of either paper. All work in source standard
deviations (`SourceUnits`), every window with draws of its own:

    (1) jitter          u + 0.05 N            each value
    (2) scaling         u N(1, 0.1)           each channel
    (3) time shift      u(t - k)              k uniform within 5 % of the window; the edge value fills the gap
    (4) magnitude warp  u(t) c(t)             c: smooth curve through 4 knots N(1, 0.1), each channel

Windows without a time axis are not shifted, and their curve is its first knot. The curve is a cubic convolution through
the knots where ACCUP takes a spline: as smooth to the eye, and one call of torch.
"""

import torch
from torch import Tensor

__all__ = ["augmented", "jitter", "magnitude_warp", "scaling", "time_shift"]

_KNOTS = 4
_SHIFT = 0.05


def jitter(units: Tensor, generator: torch.Generator, sigma: float = 0.05) -> Tensor:
    """Return units (n, C, ...) with noise of `sigma` source standard deviations on each value."""  # (1)
    return units + sigma * torch.randn(units.shape, generator=generator, dtype=units.dtype)


def scaling(units: Tensor, generator: torch.Generator, sigma: float = 0.1) -> Tensor:
    """Return units (n, C, ...) with a gain N(1, sigma) on each channel of each window, about the source mean."""  # (2)
    shape = (*units.shape[:2], *(1,) * (units.dim() - 2))
    return units * (1 + sigma * torch.randn(shape, generator=generator, dtype=units.dtype))


def time_shift(units: Tensor, generator: torch.Generator, largest: int | None = None) -> Tensor:
    """Return units (n, ..., L) later or earlier by up to `largest` samples (default 5 % of L, at least 1).

    The first or last value fills the gap: wrapping around would make a jump that no sensor makes.
    """  # (3)
    length = units.shape[-1]
    if units.dim() < 3 or length < 2:
        return units
    largest = max(1, round(_SHIFT * length)) if largest is None else largest
    shift = torch.randint(-largest, largest + 1, (len(units), 1), generator=generator)
    index = (torch.arange(length) - shift).clamp(0, length - 1)  # (n, L)
    return units.gather(-1, index.reshape(len(units), *(1,) * (units.dim() - 2), length).expand_as(units))


def magnitude_warp(units: Tensor, generator: torch.Generator, sigma: float = 0.1) -> Tensor:
    """Return units (n, C, ..., L) times smooth curves around 1, one for each channel of each window."""  # (4)
    length = units.shape[-1] if units.dim() > 2 else 1
    knots = 1 + sigma * torch.randn((*units.shape[:2], 1, _KNOTS), generator=generator, dtype=units.dtype)
    curves = torch.nn.functional.interpolate(
        knots, size=(1, length), mode="bicubic", align_corners=True
    )  # (n, C, 1, L)
    return units * curves.reshape(*units.shape[:2], *(1,) * (units.dim() - 3), *(length,) * (units.dim() > 2))


def augmented(units: Tensor, generator: torch.Generator) -> Tensor:
    """Return one augmented view of units (n, C, ...): warp, scaling, shift and jitter, each window its own."""
    warped = magnitude_warp(units, generator)
    return jitter(time_shift(scaling(warped, generator), generator), generator)
