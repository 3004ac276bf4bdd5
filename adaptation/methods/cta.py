"""Cross-task alignment at test: the second encoder follows its own task, and the classifier's head still reads it.

After "CTA: Cross-Task Alignment for Better Test Time Training", Barbeau et al., 2025; RECONSTRUCTED, see
`acclimate.adaptation.alignment.align`. For a batch x of at least `LEAST` windows, with h', p and the classifier frozen:

    (1) L: of the encoder's own task (`acclimate.adaptation.alignment.tasks`) on x;  g = dL / d theta_u
        theta_u <- theta_u - lr g min(1, 1 / |g|)                                              `steps` times
    (2) running statistics <- 0.9 running statistics + 0.1 those of what the task looked at    at each step
    (3) answer: mean of the logits h(f_s(x)) and h'(f_u(x)), or of h'(f_u(x)) alone

theta_u: gamma, beta and what lies between the last two BatchNorm layers. Published relatives of CTA start every batch
from the source (``episodic``); going on from batch to batch is our extension. Smaller batches are answered and gathered
until there are enough windows. In (2) lies a plain refresh of BatchNorm; what it does alone is an ablation
(``steps`` without a learning rate), and so is what is left without it.

Guards, RECONSTRUCTED: windows that no working sensor sends get the source's answer and are not learned from; a step
that is not finite is not taken.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from acclimate.adaptation.alignment.aligned import Aligned
from acclimate.adaptation.alignment.tasks import Task
from acclimate.adaptation.alignment.views import Views
from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.guards.input_sanity import InputSanity
from acclimate.adaptation.method import SourceContext, State, Step, require_adapted
from acclimate.adaptation.model.network import Layer, Network, batch_statistics, normalise_with
from acclimate.adaptation.model.source_units import SourceUnits
from acclimate.adaptation.state.optimizers import all_finite, gradients_of
from acclimate.adaptation.state.random_state import random_start, resumed

__all__ = ["LEAST", "Cta"]

LEAST = 32  # windows of a batch: fewer have too few negatives
_MOMENTUM = 0.1


class Cta:
    """Configure CTA.

    Args:
        context: The source.
        aligned: The encoder that was aligned with it.
        episodic: Whether every batch starts from the aligned encoder.
        steps: The steps (1) for each batch, 0 or more.
        learning_rate: The rate of (1), 0 or more.
        refresh: Whether (2) takes place.
        rule: ``average`` or ``refit``, see (3).

    Raises:
        ConfigError: A value is out of range.
        NotAdaptable: The network has no BatchNorm layer.
    """

    stateless = False

    def __init__(
        self,
        context: SourceContext,
        aligned: Aligned,
        episodic: bool = False,
        steps: int = 1,
        learning_rate: float = 1e-3,
        refresh: bool = True,
        rule: Literal["average", "refit"] = "average",
    ) -> None:
        if steps < 0 or not learning_rate >= 0:
            raise ConfigError(f"steps, learning_rate: expected 0 or more, got {steps}, {learning_rate}")
        self._network, self._sanity = Network(context.model), InputSanity(context)
        self._aligned, self._episodic, self._steps = aligned, episodic, steps
        self._rate, self._refresh, self._rule = learning_rate, refresh, rule
        views = Views(context.windows.shape[-1] if context.windows.dim() > 2 else 1, aligned.unsafe)
        self._task = Task(
            aligned.settings, SourceUnits(context), views, lambda windows: self._network.forward(windows).features
        )
        self._learned = _last_block(self._network)
        self.adapts = require_adapted((*self._learned, *self._network.statistics), "gamma, beta or statistics")
        self._gathered = torch.zeros(LEAST, *context.windows.shape[1:])
        self._seed = context.seed

    def reset(self) -> State:
        """Return the aligned encoder (nothing in episodes), no windows gathered, and the draws' start."""
        kept = {} if self._episodic else {name: self._aligned.encoder[name] for name in self.adapts}
        return {
            **kept,
            "gathered": torch.zeros((), dtype=torch.int64),
            "windows": self._gathered,
            "generator": random_start(self._seed),
        }

    @torch.no_grad()
    def adapt_batch(self, state: State, windows: Tensor) -> tuple[State, Step]:
        """Learn from the batch, or gather it, and answer."""
        sane = self._sanity.check(windows).sane
        filled = self._sanity.fill(windows)
        rows = torch.nonzero(sane).flatten()
        start = self._aligned.encoder if self._episodic else state
        encoder = {name: start[name] for name in self.adapts}
        gathered = {name: state[name] for name in ("gathered", "windows", "generator")}
        updates = 0
        batch = filled[rows]
        if 0 < len(rows) < LEAST:
            gathered, batch = self._gather(gathered, batch)
        if len(batch) >= LEAST:
            generator = resumed(state["generator"])
            for _ in range(self._steps):
                encoder, took = self._step(encoder, batch, generator)
                updates += took
            gathered["generator"] = generator.get_state()
        source = self._network.forward(filled).logits
        mine = self._logits(encoder, filled)
        logits = (source + mine) / 2 if self._rule == "average" else mine
        answers = torch.softmax(torch.where(sane[:, None], logits, source), dim=1)
        return {**({} if self._episodic else encoder), **gathered}, Step(
            answers, updates=updates, selected=len(batch) if updates else 0
        )

    def _logits(self, encoder: Mapping[str, Tensor], windows: Tensor) -> Tensor:
        features = self._network.forward(windows, {**self._aligned.encoder, **encoder}).features
        return features @ self._aligned.head["weight"].T + self._aligned.head["bias"]

    def _gather(self, gathered: Mapping[str, Tensor], batch: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Add a small batch; return what has been gathered once it is enough, else nothing to learn from."""
        count = int(gathered["gathered"])
        held = torch.cat([gathered["windows"][:count], batch])
        if len(held) >= LEAST:
            return {**gathered, "gathered": torch.zeros((), dtype=torch.int64)}, held
        padded = torch.cat([held, self._gathered[len(held) :]])
        return {**gathered, "gathered": torch.tensor(len(held)), "windows": padded}, batch[:0]

    def _step(
        self, encoder: Mapping[str, Tensor], batch: Tensor, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], int]:
        """Return the encoder after one step, and whether it was taken."""
        learned = {name: encoder[name].detach().requires_grad_() for name in self._learned}
        seen: dict[int, tuple[Tensor, Tensor]] = {}

        def by_views(layer: Layer, x: Tensor) -> Tensor:
            mean, var = batch_statistics(x) or (layer.mean, layer.var)
            seen[layer.index] = mean.detach(), var.detach()
            return normalise_with(layer, x, mean, var)

        tensors = {**self._aligned.encoder, **encoder, **learned}

        def encode(windows: Tensor) -> Tensor:
            return self._network.forward(windows, tensors, by_views if self._refresh else None).features

        with torch.enable_grad():
            loss = self._task.loss(encode, self._aligned.projector, batch, generator)
            gradients = gradients_of(loss, learned)
        if not all_finite((loss, *gradients.values())):
            return dict(encoder), 0
        length = torch.stack([gradient.square().sum() for gradient in gradients.values()]).sum().sqrt()
        scale = self._rate / length.clamp(min=1.0)  # (1)
        new = {**encoder, **{name: encoder[name] - scale * gradients[name] for name in self._learned}}
        for index, (mean, var) in seen.items():  # (2)
            for kind, value in (("running_mean", mean), ("running_var", var)):
                name = f"{self._network.norms[index]}.{kind}"
                new[name] = torch.lerp(encoder[name], value, _MOMENTUM)
        return new, 1


def _last_block(network: Network) -> tuple[str, ...]:
    """Return the names of all gamma and beta, and of what lies between the last two BatchNorm layers."""
    names = [name for name in network.tensors if name not in network.statistics]
    last = names.index(f"{network.norms[-1]}.weight")
    before = names.index(f"{network.norms[-2]}.bias") + 1 if len(network.norms) > 1 else last
    return tuple(dict.fromkeys((*network.affine, *names[before:last])))
