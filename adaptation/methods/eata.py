"""EATA: TENT on windows that are sure and unlike the ones before, held near the source by a Fisher penalty.

After "Efficient Test-Time Model Adaptation without Forgetting", Niu et al., ICML 2022. BatchNorm uses the statistics of
the batch; gamma and beta learn; the answer is the one from before the step. Nothing selected: no step.

    (1) keep window i if H_i < E0 = 0.4 ln K
    (2) and |cos(p_bar, p_i)| < d, once there is a p_bar;  p_bar <- 0.9 p_bar + 0.1 mean(kept p)
    (3) L = mean over kept of exp(E0 - H_i) H_i, the factor constant
    (4)   + a sum_j F_j (theta_j - theta_0j)^2,  F = mean over source batches of (dCE(p, argmax p) / dtheta)^2

The published d, 0.05, presumes 1000 classes, and 0.4 is in use for 10: a sure answer against a balanced p_bar has
cosine 1 / sqrt(K), so with few classes 0.05 keeps nothing. RECONSTRUCTED: the power law through both points,
d = 0.4 (10 / K)^0.4515, which stays at 1.2 to 1.6 times 1 / sqrt(K). F comes from the source sample, a few hundred
windows in shuffled batches of 64, where the paper takes 2000. `fisher_weight` 1 is the setting for 10 classes (2000:
for 1000). ETA is EATA without (4).
"""

import math

import torch
from torch import Tensor

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.method import SourceContext, State, Step, require_adapted
from acclimate.adaptation.model.losses import entropies
from acclimate.adaptation.model.network import Network, by_batch
from acclimate.adaptation.state.optimizers import all_finite, gradients_of, sgd_start, sgd_step

__all__ = ["Eata", "cosine_margin_for"]

_FISHER_BATCH = 64


def cosine_margin_for(classes: int) -> float:
    """Return d for K classes, 2 or more.

    >>> [round(cosine_margin_for(k), 2) for k in (3, 6, 10, 1000)]
    [0.69, 0.5, 0.4, 0.05]
    """
    return min(1.0, 0.4 * math.pow(10 / classes, math.log(0.4 / 0.05) / math.log(1000 / 10)))


class Eata:
    """Configure EATA.

    Args:
        context: The source; its windows give the Fisher weights.
        learning_rate: The rate of SGD with momentum 0.9. Raising it adapts, and collapses, faster.
        entropy_share: E0 as a share of ln K, 0 to 1. Raising it lets less sure windows teach.
        cosine_margin: d, 0 to 1; None for the rule above. Raising it lets more similar windows teach; 1 all.
        fisher_weight: a. Raising it holds gamma and beta nearer to the source.
        fisher: False for ETA: no penalty.

    Raises:
        ConfigError: The network has no BatchNorm layer, or a setting is out of range.
    """

    stateless = False

    def __init__(
        self,
        context: SourceContext,
        learning_rate: float = 2.5e-4,
        entropy_share: float = 0.4,
        cosine_margin: float | None = None,
        fisher_weight: float = 1.0,
        fisher: bool = True,
    ) -> None:
        if not 0 < entropy_share <= 1:
            raise ConfigError(f"entropy_share: expected above 0 to 1, got {entropy_share}")
        self._network = Network(context.model)
        self.adapts = require_adapted(self._network.affine, "gamma or beta")
        self._learning_rate = learning_rate
        self._most = entropy_share * math.log(self._network.classes)
        self._margin = cosine_margin_for(self._network.classes) if cosine_margin is None else cosine_margin
        self._fisher_weight = fisher_weight if fisher else 0.0
        self._fisher = self._fisher_of(context) if fisher else {}

    def _fisher_of(self, context: SourceContext) -> dict[str, Tensor]:
        order = torch.randperm(len(context.windows), generator=torch.Generator().manual_seed(context.seed))
        batches = [context.windows[order[at : at + _FISHER_BATCH]] for at in range(0, len(order), _FISHER_BATCH)]
        affine = {name: self._network.tensors[name].clone().requires_grad_() for name in self.adapts}
        total = {name: torch.zeros_like(value) for name, value in affine.items()}
        for windows in batches:
            with torch.enable_grad():
                logits = self._network.forward(windows, affine, by_batch).logits
                loss = torch.nn.functional.cross_entropy(logits, logits.detach().argmax(dim=1))
                gradients = torch.autograd.grad(loss, list(affine.values()))
            for name, gradient in zip(affine, gradients, strict=True):
                total[name] += gradient.square() / len(batches)  # (4)
        return total

    def reset(self) -> State:
        """Return the source's gamma and beta, an empty momentum, and no mean answer (all zero)."""
        affine = {name: self._network.tensors[name] for name in self.adapts}
        mean_answer = torch.zeros(self._network.classes, dtype=next(iter(affine.values())).dtype)
        return {**affine, **sgd_start(affine), "mean_answer": mean_answer}

    def adapt_batch(self, state: State, windows: Tensor) -> tuple[State, Step]:
        """Answer with the statistics of this batch, then take one step on the windows that (1) and (2) keep."""
        affine = {name: state[name].detach().requires_grad_() for name in self.adapts}
        with torch.enable_grad():
            logits = self._network.forward(windows, affine, by_batch).logits
            uncertain = entropies(logits)
        probabilities = torch.softmax(logits.detach(), dim=1)
        kept = uncertain.detach() < self._most  # (1)
        mean_answer = state["mean_answer"]
        if mean_answer.any():
            kept &= torch.cosine_similarity(mean_answer[None], probabilities).abs() < self._margin  # (2)
        selected = int(kept.sum())
        if selected == 0:
            return state, Step(probabilities)
        with torch.enable_grad():
            loss = ((self._most - uncertain.detach()).exp() * uncertain)[kept].mean()  # (3)
            gradients = gradients_of(loss, affine)
        if not all_finite((loss, *gradients.values())):
            return state, Step(probabilities)
        for name, weight in self._fisher.items():  # (4), whose gradient needs no graph
            away = affine[name].detach() - self._network.tensors[name]
            gradients[name] = gradients[name] + 2 * self._fisher_weight * weight * away
        now = probabilities[kept].mean(dim=0)
        new = sgd_step(affine, gradients, state, self._learning_rate)
        new["mean_answer"] = 0.9 * mean_answer + 0.1 * now if mean_answer.any() else now
        return new, Step(probabilities, updates=1, selected=selected)
