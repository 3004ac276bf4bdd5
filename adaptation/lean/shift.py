"""Shift magnitude: how far one window is from the source, in a unit that means the same on every model.

Both parts are read from the inputs of the BatchNorm layers of the frozen source forward pass. Per window and layer:

    mean part      D = mean_c (mu_t - mu_s)^2 / (var_s + eps)      LeanTTA's distance at tau = 0, divided by channels
    variance part  V = mean_c (log(var_t + eps) - m_c)^2 / s_c^2   the same for the log-variance of a window

where m_c and s_c^2 are mean and variance of log(var_t + eps) over the source's training windows. A window's part is the
mean over layers, divided by its 0.99 quantile on held-out source windows; the values per layer are divided by the
quantile of that layer. The magnitude is the larger part, uncapped. One in a hundred held-out source windows reaches 1.0
by each part, so one to two in a hundred reach it by the magnitude.

The variance part is there because a pure gain hardly moves means: with offsets removed, a window turned down to 0.3
looks *closer* to the source by its mean. Without a time axis (tabular rows) a window has no variance: that part is 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from acclimate.adaptation.errors import DataError
from acclimate.adaptation.lean.leantta import window_statistics
from acclimate.adaptation.lean.shift_calibration import ShiftCalibration
from acclimate.adaptation.model.batch_norms import at_batch_norms, batch_norms, source_statistics
from acclimate.adaptation.model.nets import Classifier
from acclimate.adaptation.model.train import Trained

__all__ = ["ShiftMeasure", "calibrate", "calibrate_trained", "measure"]

_QUANTILE = 0.99
# RECONSTRUCTED. Floors keep near-constant channels (always silent after a ReLU-fed map) from dominating the variance
# part: 0.01 is a standard deviation of 10 % in a variance. A quantile of 0 would make every window infinite.
_LOG_VARIANCE_FLOOR = 0.01
_QUANTILE_FLOOR = 1e-6
_CHUNK = 256

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ShiftMeasure:
    """Calibrated shift of n windows, float32: per layer (n, layers), per window (n,)."""

    shift_mean: FloatArray
    shift_variance: FloatArray
    mean_part: FloatArray
    variance_part: FloatArray
    magnitude: FloatArray


def calibrate(model: Classifier, training_windows: FloatArray, held_out_windows: FloatArray) -> ShiftCalibration:
    """Return the constants of the shift magnitude for a trained model in evaluation mode.

    Args:
        model: The source model.
        training_windows: Source windows it was trained on (n, C, L), for m_c and s_c^2.
        held_out_windows: Source windows it was not trained on, for the quantiles; best from other devices.

    Raises:
        DataError: One of the two is empty.
    """
    for name, windows in (("training", training_windows), ("held-out", held_out_windows)):
        if len(windows) == 0:
            raise DataError(f"shift calibration: expected at least one {name} source window, got none", "empty")
    logs = [np.log(var + norm.eps) for (_, var), norm in _statistics(model, training_windows)]
    centres = tuple(log.mean(axis=0).astype(np.float32) for log in logs)
    spreads = tuple(np.maximum(log.var(axis=0), _LOG_VARIANCE_FLOOR).astype(np.float32) for log in logs)
    means, variances = _raw_parts(model, held_out_windows, centres, spreads)

    def quantile(values: npt.NDArray[np.float64]) -> FloatArray:
        # Where a part does not exist all values are 0, and dividing by 1 keeps them so.
        limit = np.quantile(values, _QUANTILE, axis=0) if values.any() else np.ones(values.shape[1:])
        return np.maximum(limit, _QUANTILE_FLOOR).astype(np.float32)

    return ShiftCalibration(
        log_variance_mean=centres,
        log_variance_variance=spreads,
        layer_mean_quantile=quantile(means),
        layer_variance_quantile=quantile(variances),
        mean_quantile=quantile(means.mean(axis=1)),
        variance_quantile=quantile(variances.mean(axis=1)),
    )


def calibrate_trained(trained: Trained, windows: FloatArray) -> ShiftCalibration:
    """Return the constants of the shift magnitude of a trained source; ``windows`` are those it was trained on.

    The quantiles are the measured model's, on windows that it never saw: on its own training windows the returned model
    would look closer to its source than any new device is. What they are quantiles of, the distance from the typical
    log-variance, is taken from the returned model.
    """
    held_out = windows[trained.held_out]
    measured = calibrate(trained.measured_model, windows[~trained.held_out], held_out)
    if not trained.refitted:
        return measured
    final = calibrate(trained.model, windows, held_out)
    return replace(
        measured,
        log_variance_mean=final.log_variance_mean,
        log_variance_variance=final.log_variance_variance,
    )


def measure(model: Classifier, windows: FloatArray, calibration: ShiftCalibration) -> ShiftMeasure:
    """Return the calibrated shift of each window alone; the reference for the exported graph."""
    means, variances = _raw_parts(
        model, windows, calibration.log_variance_mean, calibration.log_variance_variance
    )  # (n, layers) each
    mean_part = means.mean(axis=1) / calibration.mean_quantile  # (n,)
    variance_part = variances.mean(axis=1) / calibration.variance_quantile  # (n,)
    return ShiftMeasure(
        shift_mean=(means / calibration.layer_mean_quantile).astype(np.float32),
        shift_variance=(variances / calibration.layer_variance_quantile).astype(np.float32),
        mean_part=mean_part.astype(np.float32),
        variance_part=variance_part.astype(np.float32),
        magnitude=np.maximum(mean_part, variance_part).astype(np.float32),
    )


def _raw_parts(
    model: Classifier, windows: FloatArray, centres: Sequence[FloatArray], spreads: Sequence[FloatArray]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return D and V before calibration, (n, layers) each."""
    means, variances = [], []
    layers = zip(_statistics(model, windows), centres, spreads, strict=True)
    for ((mean_t, var_t), norm), centre, spread in layers:
        mean_s, var_s = (tensor.double().numpy() for tensor in source_statistics(norm))
        means.append(((mean_t - mean_s) ** 2 / (var_s + norm.eps)).mean(axis=1))
        score = (np.log(var_t + norm.eps) - centre) ** 2 / spread  # (n, C)
        variances.append(score.mean(axis=1) if model.spec.adaptable else np.zeros(len(windows)))
    return np.stack(means, axis=1), np.stack(variances, axis=1)


def _statistics(
    model: Classifier, windows: FloatArray
) -> list[tuple[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]], _BatchNorm]]:
    """Return each layer's per-window mean and variance, (n, C) each in float64, on the source forward pass."""
    norms = batch_norms(model)
    seen: list[list[tuple[Tensor, Tensor]]] = [[] for _ in norms]

    def see(index: int, _norm: _BatchNorm, x: Tensor) -> None:
        seen[index].append(window_statistics(x))

    with torch.inference_mode(), at_batch_norms(norms, see):
        for start in range(0, len(windows), _CHUNK):
            model(torch.from_numpy(np.ascontiguousarray(windows[start : start + _CHUNK])))
    result = []
    for parts, norm in zip(seen, norms, strict=True):
        mean = torch.cat([mean for mean, _ in parts]).double().numpy()
        var = torch.cat([var for _, var in parts]).double().numpy()
        result.append(((mean, var), norm))
    return result
