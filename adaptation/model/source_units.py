"""Raw windows to source standard deviations and back, so that one strength of a change fits every sensor.

    (1) u = (T(x) - m) / s          channel by channel, clipped to +-10^4
    (2) x = T^-1(m + s u)

T, m and s are those inside a `Classifier`: T is the signed logarithm where the network takes it, else nothing. Any
other network is given T = nothing, and m and s from the source windows.
"""

import torch
from torch import Tensor

from acclimate.adaptation.method import SourceContext
from acclimate.adaptation.model.nets import Classifier
from acclimate.adaptation.model.spec import SCALED_LIMIT

__all__ = ["SourceUnits"]

_LARGEST_LOG = 88.0  # exp(88) is the last whole power that float32 holds


class SourceUnits:
    """Take the units of a source.

    Args:
        context: The source; for a network of foreign make its windows give mean and deviation.

    Attributes:
        mean, std: The mean and deviation of each channel (C,), after the transform; a channel that never moves has 1.
    """

    def __init__(self, context: SourceContext) -> None:
        if isinstance(context.model, Classifier):
            scaling = context.model.scaling
            self._signed_log, self.mean, self.std = scaling.signed_log, scaling.mean.clone(), scaling.std.clone()
        else:
            axes = [axis for axis in range(context.windows.dim()) if axis != 1]
            var, mean = torch.var_mean(context.windows, dim=axes, correction=0)
            self._signed_log, self.mean, self.std = False, mean, torch.where(var > 0, var, 1.0).sqrt()

    def to_units(self, windows: Tensor) -> Tensor:
        """Return raw windows (n, C, ...) in source standard deviations, within +-10^4."""  # (1)
        shape = (1, -1, *(1,) * (windows.dim() - 2))
        x = torch.sign(windows) * torch.log1p(torch.abs(windows)) if self._signed_log else windows
        return ((x - self.mean.reshape(shape)) / self.std.reshape(shape)).clamp(-SCALED_LIMIT, SCALED_LIMIT)

    def to_raw(self, units: Tensor) -> Tensor:
        """Return the raw windows that stand at `units` (n, C, ...)."""  # (2)
        shape = (1, -1, *(1,) * (units.dim() - 2))
        x = units * self.std.reshape(shape) + self.mean.reshape(shape)
        return torch.sign(x) * torch.expm1(torch.abs(x).clamp(max=_LARGEST_LOG)) if self._signed_log else x
