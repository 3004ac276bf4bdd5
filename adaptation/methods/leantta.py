"""LeanTTA as a method, and its hybrid with a periodic light recalibration.

`Leantta` is `acclimate.adaptation.lean.leantta`, stateless: directions A and B are its settings. Rows without a time
axis have no statistics of their own, so there `Leantta` is refused: it would be the source under another name.
`LeanttaHybrid`
pairs it with a recalibration: every window is still corrected by itself, but from reference statistics mu_r, var_r in
the place of the source's, and these move a little, once per period:

    (1) mu_p, var_p    over all windows of the period, on the layer's input in the adapted pass
    (2) mu_r <- mu_r + momentum (mu_p - mu_r),  var_r alike;  a new period begins

RECONSTRUCTED: the commissioning description asks for a "periodic light recalibration on a batch" and says no more. Our
guesses: the batch is the period, kept as moments and not as windows, so that memory is constant; the distance of a
window is taken from the reference, not from the source; only the layers that LeanTTA adapts are recalibrated, and from
its adapted pass; a period's share is `momentum`.

Rows without a time axis are recalibrated as well, as a period of rows does have statistics. But nothing of LeanTTA is
left in that: what answers there is a moving average of BatchNorm statistics with a step per period (like `EmaBatchNorm`
in large batches, one step late), and a gain on such rows says nothing about LeanTTA. Momentum 0 is refused there.
"""

import torch
from torch import Tensor

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.lean.lean_settings import LeanSettings
from acclimate.adaptation.lean.leantta import lean_batch_norm
from acclimate.adaptation.method import SourceContext, State, Step, require_adapted
from acclimate.adaptation.methods.layer_choice import chosen_layers, layers_with_time
from acclimate.adaptation.model.moments import blend, moments, normalise_by
from acclimate.adaptation.model.network import Layer, Network, has_time

__all__ = ["Leantta", "LeanttaHybrid", "normalise_leantta"]


def _fitting(settings: LeanSettings | None, network: Network) -> LeanSettings:
    """Return the settings, or the defaults of a network, once they fit it."""
    if settings is None:
        return LeanSettings.for_layers(len(network.norms))
    chosen_layers(settings.layers, len(network.norms))
    if settings.threshold > 0:
        raise ConfigError(
            f"threshold: expected 0, got {settings.threshold}; the shift magnitude that it gates by is calibrated "
            f"with a bundle and not known here"
        )
    return settings


def normalise_leantta(settings: LeanSettings, layer: Layer, x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    """Correct each window of x from reference statistics (C,), where the layer is on and a window has its own."""
    if not settings.layers[layer.index] or not has_time(x):
        return normalise_by(layer, x, mean, var)
    y, _, _ = lean_batch_norm(
        x,
        mean,
        var,
        layer.gamma,
        layer.beta,
        layer.eps,
        tau=settings.tau,
        lam=settings.lam,
        direction=settings.direction,
        normalize_by_channels=settings.normalize_by_channels,
    )
    return y


class Leantta:
    """Configure LeanTTA.

    Args:
        context: The source; its model, and one window for its shape.
        settings: Direction, strength and layers; `LeanSettings.for_layers` when not given. Its threshold must be 0.

    Raises:
        NotAdaptable: No chosen layer sees a time axis.
        ConfigError: The settings do not fit the network.
    """

    stateless = True

    def __init__(self, context: SourceContext, settings: LeanSettings | None = None) -> None:
        self._network = Network(context.model)
        self._settings = _fitting(settings, self._network)
        layers = layers_with_time(self._network, context.windows, self._settings.layers)
        names = self._network.statistics
        self.adapts = tuple(name for index, name in enumerate(names) if layers[index // 2])

    def reset(self) -> State:
        """Return nothing."""
        return {}

    @torch.no_grad()
    def adapt_batch(self, state: State, windows: Tensor) -> tuple[State, Step]:
        """Answer each window by itself."""

        def normalise(layer: Layer, x: Tensor) -> Tensor:
            return normalise_leantta(self._settings, layer, x, layer.mean, layer.var)

        return state, Step(torch.softmax(self._network.forward(windows, normalise=normalise).logits, dim=1))


class LeanttaHybrid:
    """Configure LeanTTA with recalibration.

    Args:
        context: The source; its model, and one window for its shape.
        settings: The same as for `Leantta`.
        period: Windows between recalibrations, at least 1. Raising it recalibrates more rarely, on more windows.
        momentum: Share of a period, 0 to 1. Raising it follows the device further; 0 is `Leantta`.

    Raises:
        NotAdaptable: The momentum is 0 and no chosen layer sees a time axis.
        ConfigError: A setting is out of range, or does not fit the network.
    """

    stateless = False

    def __init__(
        self,
        context: SourceContext,
        settings: LeanSettings | None = None,
        period: int = 256,
        momentum: float = 0.1,
    ) -> None:
        if period < 1:
            raise ConfigError(f"period: expected at least 1 window, got {period}")
        if not 0.0 <= momentum <= 1.0:
            raise ConfigError(f"momentum: expected 0 to 1, got {momentum}")
        self._network = Network(context.model)
        self._settings = _fitting(settings, self._network)
        if momentum == 0.0:
            layers_with_time(self._network, context.windows, self._settings.layers)
        self._period, self._momentum = period, momentum
        names = self._network.statistics
        self.adapts = tuple(name for index, name in enumerate(names) if self._settings.layers[index // 2])
        require_adapted(self.adapts, "statistics")

    def reset(self) -> State:
        """Return the source's statistics as reference, and an empty period."""
        reference = {name: self._network.tensors[name] for name in self.adapts}
        period = {f"period/{name}": torch.zeros_like(tensor) for name, tensor in reference.items()}
        return {"period/windows": torch.zeros((), dtype=torch.int64), **reference, **period}

    @torch.no_grad()
    def adapt_batch(self, state: State, windows: Tensor) -> tuple[State, Step]:
        """Answer each window by itself from the reference; a batch that crosses the end of a period is cut there."""
        answers, updates = [], 0
        while len(windows) > 0:
            room = self._period - int(state["period/windows"])
            state, logits = self._answer(state, windows[:room])
            answers.append(logits)
            windows = windows[room:]
            if int(state["period/windows"]) == self._period:
                state, updates = self._recalibrate(state), updates + 1
        probabilities = torch.softmax(torch.cat(answers) if len(answers) > 1 else answers[0], dim=1)
        return state, Step(probabilities, updates=updates, selected=updates * self._period)

    def _answer(self, state: State, windows: Tensor) -> tuple[State, Tensor]:
        count = int(state["period/windows"])
        share = len(windows) / (count + len(windows))
        new = {**state, "period/windows": state["period/windows"] + len(windows)}

        def normalise(layer: Layer, x: Tensor) -> Tensor:
            if not self._settings.layers[layer.index]:
                return normalise_by(layer, x, layer.mean, layer.var)
            names = self._network.statistics[2 * layer.index : 2 * layer.index + 2]
            kept = [f"period/{name}" for name in names]
            new.update(zip(kept, blend(state[kept[0]], state[kept[1]], *moments(x), share), strict=True))  # (1)
            return normalise_leantta(self._settings, layer, x, state[names[0]], state[names[1]])

        return new, self._network.forward(windows, normalise=normalise).logits

    def _recalibrate(self, state: State) -> State:
        new = {name: torch.lerp(state[name], state[f"period/{name}"], self._momentum) for name in self.adapts}  # (2)
        empty = {f"period/{name}": torch.zeros_like(tensor) for name, tensor in new.items()}
        return {"period/windows": torch.zeros((), dtype=torch.int64), **new, **empty}
