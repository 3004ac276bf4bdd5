"""Constants of the shift magnitude, kept with a model.

They stand apart from `acclimate.adaptation.lean.shift` so that reading them needs no torch.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["ShiftCalibration"]


@dataclass(frozen=True)
class ShiftCalibration:
    """Hold what `acclimate.adaptation.lean.shift.calibrate` measured on the source; all arrays float32.

    Args:
        log_variance_mean: Per layer (C,), mean of log(var_t + eps) over training windows.
        log_variance_variance: Per layer (C,), its variance, floored.
        layer_mean_quantile, layer_variance_quantile: (layers,), 0.99 quantiles of the parts of each layer.
        mean_quantile, variance_quantile: (), 0.99 quantiles of the parts of a window.
    """

    log_variance_mean: tuple[npt.NDArray[np.float32], ...]
    log_variance_variance: tuple[npt.NDArray[np.float32], ...]
    layer_mean_quantile: npt.NDArray[np.float32]
    layer_variance_quantile: npt.NDArray[np.float32]
    mean_quantile: npt.NDArray[np.float32]
    variance_quantile: npt.NDArray[np.float32]
