"""The tasks that an encoder can learn without labels, before deployment and on the device.

    (1) contrastive  two `views` of a window find each other among all others: `contrastive.ssl_loss`
    (2) masked       a stretch of the window is hidden, and a small network of the features says what was there:
                     mean squared error over the hidden values, in source standard deviations
    (3) cross        a small network of the features gives those of the frozen encoder: 1 - cosine, after ReC-TTT
                     (Colussi et al., 2025), whose images are reconstructed at several layers and in both directions;
                     RECONSTRUCTED for the last features and one direction

(2) and (3) have no negatives and do not care which windows share a batch; (1) does.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from acclimate.adaptation.alignment.aligned import AlignmentSettings, project
from acclimate.adaptation.alignment.contrastive import ssl_loss
from acclimate.adaptation.alignment.views import Views, time_mask
from acclimate.adaptation.model.source_units import SourceUnits

__all__ = ["Task"]

_HIDDEN_FEATURES = 0.3  # of rows without a time axis, for (2)


@dataclass(frozen=True, eq=False)
class Task:
    """One task on one kind of windows.

    Attributes:
        settings: The kind of the task and its constants.
        units: The units of the source.
        views: Safe changes.
        frozen: The frozen encoder: from raw windows (n, C, L) to features (n, F).
    """

    settings: AlignmentSettings
    units: SourceUnits
    views: Views
    frozen: Callable[[Tensor], Tensor]

    def projector(self, features: int, values: int) -> nn.Sequential:
        """Return a projector with torch's initial weights, from features to what the task asks for.

        Args:
            features: F.
            values: The number of values in a window, C L.
        """
        outputs = {"contrastive": self.settings.width, "masked": values, "cross": features}[self.settings.task]
        return nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, outputs))

    def loss(
        self,
        encode: Callable[[Tensor], Tensor],
        projector: Mapping[str, Tensor],
        windows: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """Return the loss of raw windows (n, C, L), a scalar: (1), (2) or (3).

        Args:
            encode: The encoder: from raw windows to features (n, F); called once.
            projector: The projector, as `aligned.project` takes it.
            windows: n at least 2.
            generator: The generator of the draws; it advances.
        """
        if self.settings.task == "cross":
            given = project(projector, encode(windows))
            return 1 - cosine_similarity(given, self.frozen(windows).detach(), dim=1).mean()
        units = self.units.to_units(windows)
        if self.settings.task == "masked":
            hidden = _hidden(units, generator)
            given = project(projector, encode(self.units.to_raw(units.masked_fill(hidden, 0.0))))
            return (given.reshape(units.shape) - units)[hidden].square().mean()
        first, second = (self.units.to_raw(self.views.draw(units, generator)) for _ in range(2))
        z = project(projector, encode(torch.cat([first, second])))
        return ssl_loss(z[: len(windows)], z[len(windows) :], self.settings.ssl_temperature)


def _hidden(units: Tensor, generator: torch.Generator) -> Tensor:
    """Return which values are hidden, in the shape of units (n, C, L)."""
    if units.shape[-1] > 1:
        return time_mask(torch.ones_like(units), generator) == 0
    return torch.rand(units.shape, generator=generator) < _HIDDEN_FEATURES
