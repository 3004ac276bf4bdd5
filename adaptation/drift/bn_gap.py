"""BatchNorm gap: how far the statistics of a batch are from those that the network was trained with, layer by layer.

With the source's mean mu0 and deviation s0 of a layer's C channels and the batch's mu and s, n_eff the independent
windows in the batch:

    (1) G_l = 1/C sum_c [ (mu - mu0)^2 + (s - s0)^2 ] / s0^2       squared 2-Wasserstein distance of diagonal Gaussians
    (2) floor = 3 / (2 n_eff)                                       what G_l is for a batch of the source itself
    (3) level = median_l G_l - floor

(2) is the variance 1/n of a mean plus 1/(2n) of a Gaussian's deviation. It is a bound from above where samples inside a
window count as well, so a level of an unshifted batch is near 0 or below. A gap in early layers alone points to sensor
or gain, one that grows with depth to what is being sensed.

As in a forward pass in training mode each layer is normalised by the batch before the next one looks, so a fault that
the first layer removes is not counted again. `refreshed=False` keeps the source's statistics on the way: the frozen
network as it answers.

RECONSTRUCTED: the floor's factor; the deviation term is left out where a batch has no deviation (one row without time).
"""

from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from adaptation.drift.sample_size import effective_size
from adaptation.errors import ConfigError, DataError
from adaptation.model.network import Layer, Network, batch_statistics, normalise_with

__all__ = ["BnGap", "bn_gap"]


@dataclass(frozen=True)
class BnGap:
    """The gap of one batch.

    Attributes:
        layers: G_l of each BatchNorm layer, at least 0, in squared source deviations.
        floor: Of sampling, the same for each layer.
    """

    layers: tuple[float, ...]
    floor: float

    @property
    def level(self) -> float:
        """The median layer above the floor; near 0, or below, where nothing shifted."""
        return median(self.layers) - self.floor  # (3)


def bn_gap(network: Network, windows: Tensor, effective: float | None = None, refreshed: bool = True) -> BnGap:
    """Measure a batch of raw windows (n, C, L) of one device; their order does not matter.

    Args:
        network: The frozen source.
        windows: n at least 1.
        effective: Independent windows among them, see `effective_size`; n when not given. Raising it lowers the floor.
        refreshed: Whether each layer passes on what the batch's statistics normalised, or the source's.

    Raises:
        ConfigError: ``effective`` is not above 0.
        DataError: There is no window, or one holds a value that is not finite.
    """
    if not torch.isfinite(windows).all():
        raise DataError("BatchNorm gap: expected finite windows, got NaN or infinity", "not_finite")
    n = effective_size(len(windows), 0.0) if effective is None else effective
    if not n > 0:
        raise ConfigError(f"effective: expected a number of windows above 0, got {n}")
    gaps: list[float] = []

    def see(layer: Layer, x: Tensor) -> Tensor:
        found = batch_statistics(x)
        # One row without a time axis is its own mean and has no deviation.
        mean, var = found or (x.reshape(-1), layer.var)
        mean0, scale0 = layer.mean.double(), (layer.var.double() + layer.eps).sqrt()  # (C,)
        deviation = (var.double() + layer.eps).sqrt() - scale0
        gaps.append(float((((mean.double() - mean0) ** 2 + deviation**2) / scale0**2).mean()))  # (1)
        passed_on = (mean, var) if refreshed and found else (layer.mean, layer.var)
        return normalise_with(layer, x, *passed_on)

    with torch.no_grad():
        network.forward(windows, normalise=see)
    return BnGap(tuple(gaps), 1.5 / n)  # (2)
