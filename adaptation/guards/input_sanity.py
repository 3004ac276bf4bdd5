"""Input sanity: hard rules on raw windows, before anything is adapted to them.

A broken sensor is a repair, not a shift to get used to. A window is refused, with its reasons, if

    not_finite    the share of its samples that are missing (NaN) or infinite is above a limit
    out_of_range  the share of its samples farther than so many source standard deviations from the source's mean of
                  their channel is above a limit; the classifiers clip at `SCALED_LIMIT`, where nothing can be learned
    flat_line     the share of its channels that do not change at all, though they do on the source, is above a limit

All RECONSTRUCTED: practice, no paper. A refused window is still answered, by the source.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.method import SourceContext
from acclimate.adaptation.model.spec import SCALED_LIMIT

__all__ = ["REASONS", "InputSanity", "Sanity"]

REASONS = ("not_finite", "out_of_range", "flat_line")

_FLAT = 1e-6  # of the source's standard deviation: float32 noise of a constant
_OFTEN_FLAT = 0.01  # share of source windows from which on a flat channel is that channel's habit


@dataclass(frozen=True, eq=False)
class Sanity:
    """The findings in n windows.

    Attributes:
        not_finite: (n,) share of samples that are missing or infinite.
        out_of_range: (n,) share of finite samples out of range.
        flat_line: (n,) share of channels that should change and do not; 0 without a time axis.
        refused: (n, 3) by which of `REASONS`.
        reasons: The same in words, per window; empty where the window may be learned from.
    """

    not_finite: Tensor
    out_of_range: Tensor
    flat_line: Tensor
    refused: Tensor
    reasons: tuple[tuple[str, ...], ...]

    @property
    def sane(self) -> Tensor:
        """Mask (n,) of windows that no rule refuses."""
        return ~self.refused.any(dim=1)


class InputSanity:
    """Learn from source windows what a channel may look like.

    Args:
        context: The source; only its windows are used.
        range_stds: Farthest distance from the source's mean, in source standard deviations of raw values, above 0 and
            at most `SCALED_LIMIT`. Raising it admits wilder sensors.
        out_of_range_share: Share of samples that may lie beyond, 0 to 1: single spikes are a shift, not a defect.
        not_finite_share: Share of samples that may be missing or infinite, 0 to 1. Above 0 only where they are filled
            before the network sees them.
        flat_share: Share of channels that may be flat, 0 to 1. At 0 one dead channel refuses the window.

    Raises:
        ConfigError: A setting is out of range.
    """

    def __init__(
        self,
        context: SourceContext,
        range_stds: float = 100.0,
        out_of_range_share: float = 0.1,
        not_finite_share: float = 0.0,
        flat_share: float = 0.0,
    ) -> None:
        if not 0 < range_stds <= SCALED_LIMIT:
            raise ConfigError(f"range_stds: expected above 0 and at most {SCALED_LIMIT:g}, got {range_stds}")
        shares = (not_finite_share, out_of_range_share, flat_share)
        if not all(0 <= share <= 1 for share in shares):
            raise ConfigError(f"input sanity: expected shares from 0 to 1, got {shares}")
        windows = context.windows.double()  # (m, C, L)
        self._mean = windows.mean(dim=(0, 2))  # (C,)
        std = windows.std(dim=(0, 2), correction=0)  # (C,)
        self._std = torch.where(std > 0, std, torch.ones_like(std))  # a constant channel has no scale of its own
        self._range_stds = range_stds
        self._limits = torch.tensor(shares, dtype=torch.float64)
        flat = self._flat(windows).double().mean(dim=0)  # (C,)
        self._may_be_flat = flat > _OFTEN_FLAT

    def _flat(self, windows: Tensor) -> Tensor:
        """Tell which channels of which windows are constant, (n, C)."""
        if windows.shape[2] == 1:
            return torch.zeros(windows.shape[:2], dtype=torch.bool)
        return windows.amax(dim=2) - windows.amin(dim=2) <= _FLAT * self._std

    def fill(self, windows: Tensor) -> Tensor:
        """Return windows with every sample that is not finite replaced by the source's mean of its channel."""
        finite = torch.isfinite(windows)
        if bool(finite.all()):
            return windows
        return torch.where(finite, windows, self._mean.to(windows.dtype)[:, None])

    def check(self, windows: Tensor) -> Sanity:
        """Judge raw windows (n, C, L), each alone."""
        finite = torch.isfinite(windows)
        filled = self.fill(windows).double()
        far = ((filled - self._mean[:, None]).abs() > self._range_stds * self._std[:, None]) & finite
        flat = self._flat(filled) & finite.any(dim=2) & ~self._may_be_flat
        shares = torch.stack(
            (
                (~finite).double().mean(dim=(1, 2)),
                far.double().mean(dim=(1, 2)),
                flat.double().mean(dim=1),
            ),
            dim=1,
        )  # (n, 3)
        refused = shares > self._limits
        reasons = tuple(
            tuple(reason for reason, broken in zip(REASONS, row, strict=True) if broken) for row in refused.tolist()
        )
        return Sanity(shares[:, 0], shares[:, 1], shares[:, 2], refused, reasons)
