"""Running statistics from a prediction-balanced memory: the part of NOTE that needs no gradient.

After "NOTE: Robust Continual Test-time Adaptation Against Temporal Correlation", Gong et al., NeurIPS 2022. Windows are
answered with the running statistics, which depend on no neighbour, and offered to
`acclimate.adaptation.state.reservoir` under their predicted class. After every `update_every` windows the memory passes
the network as one batch, each layer normalised by that batch as in training, and

    (1) mu <- mu + m (mu_M - mu),  var alike

so that in a stream that shows one class for an hour statistics still come from all classes seen. NOTE also trains gamma
and beta by entropy on that batch and the source model with IABN; neither happens here. The biased variance is used.
"""

from functools import partial

import torch
from torch import Tensor

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.method import SourceContext, State, Step, require_adapted
from acclimate.adaptation.model.moments import normalise_by
from acclimate.adaptation.model.network import Layer, Network, batch_statistics, by_batch
from acclimate.adaptation.state.reservoir import offer, start_reservoir

__all__ = ["Pbrs"]


class Pbrs:
    """Configure statistics from a balanced memory.

    Args:
        context: The source; of its windows only the shape is used.
        capacity: Windows in memory, at least 1. Raising it steadies the statistics; memory and time grow with it.
        update_every: Windows between updates, at least 1. Raising it follows the device more slowly, at less cost.
        momentum: m, 0 to 1. Raising it follows the device faster.

    Raises:
        ConfigError: A setting is out of range, or the network has no BatchNorm layer.
    """

    stateless = False

    def __init__(
        self, context: SourceContext, capacity: int = 64, update_every: int = 64, momentum: float = 0.01
    ) -> None:
        if update_every < 1:
            raise ConfigError(f"update_every: expected at least 1 window, got {update_every}")
        if not 0.0 <= momentum <= 1.0:
            raise ConfigError(f"momentum: expected 0 to 1, got {momentum}")
        self._network = Network(context.model)
        self._update_every, self._momentum = update_every, momentum
        self._memory = start_reservoir(capacity, context.windows.shape[1:], self._network.classes, context.seed)
        self.adapts = require_adapted(self._network.statistics, "statistics")

    def reset(self) -> State:
        """Return the source's statistics and an empty memory."""
        statistics = {name: self._network.tensors[name] for name in self.adapts}
        return {**statistics, **self._memory, "since_update": torch.zeros((), dtype=torch.int64)}

    @torch.no_grad()
    def adapt_batch(self, state: State, windows: Tensor) -> tuple[State, Step]:
        """Answer, remember, and update when due; a batch that crosses an update is cut there."""
        answers, updates, selected = [], 0, 0
        while len(windows) > 0:
            room = self._update_every - int(state["since_update"])
            now, windows = windows[:room], windows[room:]
            logits = self._network.forward(now, normalise=partial(self._running, state)).logits
            answers.append(logits)
            state = {**offer(state, now, logits.argmax(dim=1)), "since_update": state["since_update"] + len(now)}
            if len(now) == room:
                state, used = self._update(state)
                updates, selected = updates + int(used > 0), selected + used
        probabilities = torch.softmax(torch.cat(answers) if len(answers) > 1 else answers[0], dim=1)
        return state, Step(probabilities, updates=updates, selected=selected)

    def _running(self, state: State, layer: Layer, x: Tensor) -> Tensor:
        mean, var = self.adapts[2 * layer.index : 2 * layer.index + 2]
        return normalise_by(layer, x, state[mean], state[var])

    def _update(self, state: State) -> tuple[State, int]:
        """Return the state after (1), and the windows used: none where a single row has no statistics."""
        held = state["memory/labels"] >= 0
        new: dict[str, Tensor] = {}

        def normalise(layer: Layer, x: Tensor) -> Tensor:
            found = batch_statistics(x)
            if found is not None:
                names = self.adapts[2 * layer.index : 2 * layer.index + 2]
                pairs = zip(names, found, strict=True)
                new.update((name, torch.lerp(state[name], value, self._momentum)) for name, value in pairs)  # (1)
            return by_batch(layer, x)

        self._network.forward(state["memory/windows"][held], normalise=normalise)
        since = torch.zeros_like(state["since_update"])
        return {**state, **new, "since_update": since}, int(held.sum()) if new else 0
