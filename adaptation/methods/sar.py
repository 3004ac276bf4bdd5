"""SAR: entropy minimisation on sure windows alone, towards flat minima, with a way back.

After "Towards Stable Test-Time Adaptation in Dynamic Wild World", Niu et al., ICLR 2023. BatchNorm uses the statistics
of the batch; gamma and beta of all but the last BatchNorm layer learn (the paper leaves out the last stage; a network
with one layer keeps it); the answer is the one from before the step.

    (1) keep window i if H_i < E0 = 0.4 ln K;  L1 = mean over kept of H_i,  g = dL1/dtheta
    (2) climb to theta + rho g / ||g||, rho = 0.05
    (3) there keep again those of the kept with H_i < E0;  L2 = their mean;  g2 = dL2/dtheta
    (4) theta <- SGD(theta, g2), momentum 0.9, from where theta was before the climb
    (5) e <- 0.9 e + 0.1 L2;  e < e_m: back to the source, momentum and e as well

The public code compares e with 0.2 whatever it is told, which is made for 1000 classes: with 6 a healthy network lies
below and is reset for ever. RECONSTRUCTED: e_m = 0.2 ln K / ln 1000. That code also writes the old e back after a
reset; here e starts anew. It steps when nothing is kept, and momentum alone then moves gamma and beta; here not.

Learning rate by batch size n, as published: 2.5e-4 from 32 windows on, below 2.5e-4 n / 32, and that twice at n = 1.
"""

import math

import torch
from torch import Tensor

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.method import SourceContext, State, Step, require_adapted
from acclimate.adaptation.model.losses import entropies
from acclimate.adaptation.model.network import Network, by_batch
from acclimate.adaptation.state.optimizers import all_finite, sgd_start, sgd_step

__all__ = ["Sar"]


class Sar:
    """Configure SAR.

    Args:
        context: The source; only its model is used.
        learning_rate: The rate of SGD, for 32 windows and more. Raising it adapts, and collapses, faster.
        entropy_share: E0 as a share of ln K, 0 to 1. Raising it lets less sure windows teach.
        radius: rho. Raising it looks for flatter minima; 0 is TENT on sure windows.
        reset_entropy: e_m, nats; None for the rule above. Raising it resets sooner; 0 never.

    Raises:
        ConfigError: The network has no BatchNorm layer, or a setting is out of range.
    """

    stateless = False

    def __init__(
        self,
        context: SourceContext,
        learning_rate: float = 2.5e-4,
        entropy_share: float = 0.4,
        radius: float = 0.05,
        reset_entropy: float | None = None,
    ) -> None:
        if not 0 < entropy_share <= 1:
            raise ConfigError(f"entropy_share: expected above 0 to 1, got {entropy_share}")
        self._network = Network(context.model)
        norms = self._network.norms[:-1] or self._network.norms
        affine = tuple(f"{norm}.{kind}" for norm in norms for kind in ("weight", "bias"))
        self.adapts = require_adapted(affine, "gamma or beta")
        self._learning_rate, self._radius = learning_rate, radius
        nats = math.log(self._network.classes)
        self._most = entropy_share * nats
        self._reset_entropy = 0.2 * nats / math.log(1000) if reset_entropy is None else reset_entropy

    def reset(self) -> State:
        """Return the source's gamma and beta, an empty momentum, and no mean entropy yet (`entropies_seen` 0)."""
        affine = {name: self._network.tensors[name] for name in self.adapts}
        counters = {"mean_entropy": torch.zeros(()), "entropies_seen": torch.zeros((), dtype=torch.int64)}
        return {**affine, **sgd_start(affine), **counters}

    def adapt_batch(self, state: State, windows: Tensor) -> tuple[State, Step]:
        """Answer with the statistics of this batch, then climb, look, and step; or return to the source."""
        affine = {name: state[name].detach().requires_grad_() for name in self.adapts}
        with torch.enable_grad():
            logits = self._network.forward(windows, affine, by_batch).logits
            uncertain = entropies(logits)
        probabilities = torch.softmax(logits.detach(), dim=1)
        kept = uncertain.detach() < self._most
        if not kept.any():
            return state, Step(probabilities)
        with torch.enable_grad():
            gradients = torch.autograd.grad(uncertain[kept].mean(), list(affine.values()))  # (1)
        norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
        climbed = {
            name: (value.detach() + self._radius * gradient / (norm + 1e-12)).requires_grad_()  # (2)
            for (name, value), gradient in zip(affine.items(), gradients, strict=True)
        }
        with torch.enable_grad():
            uncertain = entropies(self._network.forward(windows, climbed, by_batch).logits)
            kept &= uncertain.detach() < self._most
            selected = int(kept.sum())
            if selected == 0:
                return state, Step(probabilities)
            loss = uncertain[kept].mean()  # (3)
            gradients = torch.autograd.grad(loss, list(climbed.values()))
        if not all_finite((loss, norm, *gradients)):
            return state, Step(probabilities)
        seen, now = state["entropies_seen"], loss.detach().to(state["mean_entropy"].dtype)
        mean_entropy = 0.9 * state["mean_entropy"] + 0.1 * now if seen else now  # (5)
        if mean_entropy < self._reset_entropy:
            return self.reset(), Step(probabilities, updates=1, resets=1, selected=selected)
        rate = self._learning_rate * min(len(windows) / 32, 1.0) * (2 if len(windows) == 1 else 1)
        new = sgd_step(affine, dict(zip(affine, gradients, strict=True)), state, rate)  # (4)
        return {**new, "mean_entropy": mean_entropy, "entropies_seen": seen + 1}, Step(
            probabilities, updates=1, selected=selected
        )
