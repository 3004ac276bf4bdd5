"""Statistics over the whole life of a device, with the source as windows it had seen before.

The source counts as N pseudo-windows. After n windows of the device, a batch of b more gives

    (1) share = b / (N + n + b)
    (2) mu, var <- those of the mixture of what was there (1 - share) and the batch (share)
    (3) n <- n + b;  answer with mu, var

so mu is the mean over N source windows and every window of the device, and var likewise from second moments. Early on
the source rules; a device that stays long in one class is outweighed by its past. Memory is one count and two vectors
per layer. A single row without a time axis counts like a window.

The batching of windows matters twice. Statistics are those of each layer's input in this very pass: at the first
adapted layer all windows count the same, whenever they came and however they were batched (up to rounding); what a
later one sees was normalised with the statistics of the moment, which move once per batch. And a batch is counted
before it is answered, so a window's answer rests on the windows that follow it in its batch as well; in batches of 1
only on the past and itself.
"""

import math

import torch
from torch import Tensor

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.method import SourceContext, State, Step, require_adapted
from acclimate.adaptation.methods.layer_choice import chosen_layers
from acclimate.adaptation.model.moments import blend, moments, normalise_by
from acclimate.adaptation.model.network import Layer, Network

__all__ = ["CumBatchNorm", "lifetime_share"]


def lifetime_share(windows: int, new_windows: int, pseudo_windows: float) -> float:
    """Return the weight of new windows among those so far and the source's pseudo-windows: (1).

    >>> lifetime_share(192, 64, pseudo_windows=256)
    0.125
    """
    return new_windows / (pseudo_windows + windows + new_windows)


class CumBatchNorm:
    """Configure device-lifetime statistics.

    Args:
        context: The source; only its model is used.
        pseudo_windows: N, above 0. Raising it trusts a young device less.
        layers: One flag per BatchNorm layer; the others keep the source's statistics. All when not given; see
            `layer_choice.first_half`.

    Raises:
        ConfigError: A setting is out of range, or no layer is selected.
    """

    stateless = False

    def __init__(
        self, context: SourceContext, pseudo_windows: float = 256.0, layers: tuple[bool, ...] | None = None
    ) -> None:
        if not (math.isfinite(pseudo_windows) and pseudo_windows > 0):
            raise ConfigError(f"pseudo_windows: expected a finite number above 0, got {pseudo_windows}")
        self._network = Network(context.model)
        self._pseudo_windows = pseudo_windows
        names = self._network.statistics
        self._layers = chosen_layers(layers, len(self._network.norms))
        self.adapts = require_adapted(
            tuple(name for index, name in enumerate(names) if self._layers[index // 2]), "statistics"
        )

    def reset(self) -> State:
        """Return the source's statistics and a count of 0."""
        return {
            "windows": torch.zeros((), dtype=torch.int64),
            **{name: self._network.tensors[name] for name in self.adapts},
        }

    @torch.no_grad()
    def adapt_batch(self, state: State, windows: Tensor) -> tuple[State, Step]:
        """Take the batch into the statistics, then answer it with them."""
        share = lifetime_share(int(state["windows"]), len(windows), self._pseudo_windows)
        new: dict[str, Tensor] = {"windows": state["windows"] + len(windows)}

        def normalise(layer: Layer, x: Tensor) -> Tensor:
            if not self._layers[layer.index]:
                return normalise_by(layer, x, layer.mean, layer.var)
            names = self._network.statistics[2 * layer.index : 2 * layer.index + 2]
            mean, var = blend(state[names[0]], state[names[1]], *moments(x), share)  # (2)
            new.update(zip(names, (mean, var), strict=True))
            return normalise_by(layer, x, mean, var)  # (3)

        logits = self._network.forward(windows, normalise=normalise).logits
        return new, Step(torch.softmax(logits, dim=1), updates=1, selected=len(windows))
