"""LeanTTA: correct the BatchNorm statistics of one forward pass from the window itself; nothing is learned or kept.

After "LeanTTA: A Backpropagation-Free and Stateless Approach to Quantized Test-Time Adaptation on Edge Devices",
arXiv 2503.15889. This is the reference in torch; `acclimate.adaptation.engine.export` writes the same as an ONNX graph.

Notation: n windows, C channels, T samples at the layer; mu_s, var_s frozen source statistics of one BatchNorm layer.
Per window and adapted layer, in forward order:

    (1) mu_t = mean_T(x),  var_t = var_T(x)                            statistics of this window, biased variance
    (2) mu_b = tau mu_s + (1 - tau) mu_t,  var_b alike                 stabilise
    (3) D = sum_c (mu_b - mu_s)^2 / (var_s + eps),  d = 1 - exp(-D)    distance, 0 to 1
    (4) mu_new = w mu_s + (1 - w) mu_b,  var_new alike                 balance; w is the weight of the source
    (5) y = gamma (x - mu_new) / sqrt(var_new + eps) + beta            normalise; the next layer sees y
    (6) forget                                                         mu_new is never written anywhere

The direction of (4) is a real ambiguity, so both exist:

    A  "source_on_large"  w = d^lambda      the only readable summary of the paper says this: distrust wild windows.
                                            A redescending estimator: no correction of extreme shifts.
    B  "target_on_large"  w = 1 - d^lambda  what this project was asked for, and its default: correct strongly only
                                            where the shift is large, leave ordinary windows alone. RECONSTRUCTED.

(2) and (4) together are one step of gain a = (1 - tau)(1 - w) from the source towards the window:

    (7) mu_new = mu_s + a (mu_t - mu_s),  var_new = var_s + a (var_t - var_s)

RECONSTRUCTED as well: the biased variance in (1), the diagonal covariance in (3), and, not in the paper, D / C.
Where a layer sees no time axis (T = 1, tabular rows) no statistics of one window exist: a = 0, the source model.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.lean.lean_settings import Direction, LeanSettings
from acclimate.adaptation.model.batch_norms import at_batch_norms, batch_norms, source_statistics

__all__ = ["LeanResult", "adapt_batch", "lean_batch_norm", "window_statistics"]


@dataclass(frozen=True)
class LeanResult:
    """The result of one adapted forward pass.

    Args:
        logits: (n, K).
        distance: (n, layers), d of equation (3), 0 to 1 (1 is reached by rounding); 0 where the layer is off.
        gain: (n, layers), a of equation (7), 0 to 1 - tau; 0 where the layer is off.
        applicable: False if no adapted layer sees a time axis, so that the logits are the source model's.
    """

    logits: Tensor
    distance: Tensor
    gain: Tensor
    applicable: bool


def window_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return equation (1): mean and biased variance of each window and channel, both (n, C), of x (n, C, ...)."""
    flat = x.flatten(2) if x.dim() > 2 else x[:, :, None]  # (n, C, T)
    mean = flat.mean(dim=2)  # (n, C)
    return mean, (flat - mean[:, :, None]).square().mean(dim=2)  # two passes: no cancellation far from zero


def lean_batch_norm(
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    gamma: Tensor,
    beta: Tensor,
    eps: float,
    *,
    tau: float,
    lam: float,
    direction: Direction,
    normalize_by_channels: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise n windows, each with statistics of its own; equations (1) to (7).

    Args:
        x: Input of the layer (n, C, T), or (n, C, H, W).
        mean, var: Source statistics mu_s, var_s (C,).
        gamma, beta: Affine parameters (C,).
        eps: The layer's epsilon.
        tau, lam, direction, normalize_by_channels: See `LeanSettings`.

    Returns:
        y like x, distance d (n,) and gain a (n,).

    >>> one, zero = torch.ones(1), torch.zeros(1)
    >>> y, d, a = lean_batch_norm(torch.tensor([[[3.0, 5.0]]]), zero, one, one, zero, 0.0, tau=0.0, lam=1.0,
    ...                           direction="target_on_large", normalize_by_channels=False)
    >>> [round(v, 4) for v in (*y.flatten().tolist(), d.item(), a.item())]
    [-1.0, 1.0, 1.0, 1.0]
    """
    mean_t, var_t = window_statistics(x)  # (n, C), (n, C): (1)
    step = (1.0 - tau) * (mean_t - mean)  # (n, C): mu_b - mu_s of (2), without its cancellation
    terms = step.square() / (var + eps)  # (n, C)
    divergence = terms.mean(dim=1) if normalize_by_channels else terms.sum(dim=1)  # (n,): D of (3)
    distance = -torch.expm1(-divergence)  # (n,): d of (3); expm1 keeps small D, which a small lambda blows up
    large = distance.pow(lam)  # (n,)
    weight = large if direction == "source_on_large" else 1.0 - large  # (n,): w of (4)
    gain = (1.0 - tau) * (1.0 - weight)  # (n,): a
    mean_new = mean + gain[:, None] * (mean_t - mean)  # (n, C): (7)
    var_new = var + gain[:, None] * (var_t - var)  # (n, C): (7)
    scale = gamma / torch.sqrt(var_new + eps)  # (n, C)
    per_window = (*scale.shape, *(1,) * (x.dim() - 2))  # (n, C, 1, ...)
    y = (x - mean_new.reshape(per_window)) * scale.reshape(per_window) + beta.reshape(per_window[1:])  # (5)
    return y, distance, gain


def adapt_batch(model: nn.Module, windows: Tensor, settings: LeanSettings) -> LeanResult:
    """Return the output of n windows, each adapted to itself alone; the model is not changed.

    Args:
        model: Any network with BatchNorm layers, in evaluation mode.
        windows: Its input, (n, C, L) for our classifiers.
        settings: Strength, direction and layers.

    Raises:
        ConfigError: See `batch_norms`; also a layer set that has the wrong size or is empty.
    """
    norms = batch_norms(model)
    if len(settings.layers) != len(norms):
        raise ConfigError(f"layers: expected {len(norms)} flags for this network, got {len(settings.layers)}")
    if not any(settings.layers):
        raise ConfigError("layers: every flag is off; set at least one, or use tau = 1 to get the source model")
    distances = torch.zeros(len(windows), len(norms), device=windows.device)
    gains = torch.zeros_like(distances)
    applied: list[int] = []

    def replace(index: int, norm: _BatchNorm, x: Tensor) -> Tensor | None:
        if not settings.layers[index] or x.dim() == 2 or x[0, 0].numel() == 1:
            return None
        mean, var = source_statistics(norm)
        y, distances[:, index], gains[:, index] = lean_batch_norm(
            x,
            mean,
            var,
            torch.ones_like(mean) if norm.weight is None else norm.weight,
            torch.zeros_like(mean) if norm.bias is None else norm.bias,
            norm.eps,
            tau=settings.tau,
            lam=settings.lam,
            direction=settings.direction,
            normalize_by_channels=settings.normalize_by_channels,
        )
        applied.append(index)
        return y

    with torch.inference_mode(), at_batch_norms(norms, replace):
        logits: Tensor = model(windows)
    return LeanResult(logits, distances, gains, applicable=bool(applied))
