"""The teaching of MGG: right answers in the *next* batch of an episode, after its step.

First order: the gradients that MGG is shown are constants to it, so with p_t the coordinates and phi the slow weights

    (1) dL/dphi = sum_t dCE(x_{t+1}; p_t)/dp_t . dp_t/dphi,   over `unroll` steps, then Adam

At the end, streams of the whole source without any shift say how large MGG's steps may be at test: alpha, halved up to
three times until it costs at most half a point of accuracy there. RECONSTRUCTED: that limit is ours.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from acclimate.adaptation.generators.affine_gradient import (
    affine_gradient,
    batch_distance,
    discrepancy_weight,
    join,
    look,
    loss_without_labels,
    split,
)
from acclimate.adaptation.generators.meta_task import CHECK_WINDOWS, Check, MetaState, MetaTask, cosine, state_part
from acclimate.adaptation.generators.mgg import Mgg, MggSettings, moments_start, moments_step

__all__ = ["MggTraining"]

_BATCHES = (16, 32)  # windows; one size per update
_STREAMS, _STREAM_BATCHES = 4, 16  # of each update: episodes, and their batches
_SHARES = (1.0, 0.5, 0.25, 0.125)  # of alpha, tried in this order


class MggTraining:
    """Teach MGG; an update is a pass along a few episodes.

    Args:
        task: The task of meta-training.
        settings: The settings of MGG.
    """

    check_every = 4

    def __init__(self, task: MetaTask, settings: MggSettings) -> None:
        self.task, self.settings = task, settings
        self.mgg = Mgg(settings, task.seed).to(task.device)
        self.weights = {name: value.detach().clone() for name, value in self.mgg.named_parameters()}
        self.start = {name: task.network.tensors[name] for name in task.network.affine}
        self.weight = discrepancy_weight(task.network.classes)

    def advance(self, state: MetaState, number: int, done: float) -> tuple[MetaState, float]:
        """Follow a few episodes from their start, with a step of Adam every `unroll` batches: (1)."""
        self.mgg.load_state_dict(state_part(state, "weights/"))
        each = _BATCHES[number % 2]
        windows, labels = self.task.drawn(number, _STREAMS, _STREAM_BATCHES * each)
        groups = len(windows)
        p = join({name: value.expand(groups, -1) for name, value in self.start.items()})  # (groups, P)
        moments = {name: value.to(self.task.device) for name, value in moments_start(tuple(p.shape)).items()}
        memory = self.mgg.start(p.numel())  # learned too: the first step is linked to it
        linked: Tensor | None = None  # how p hangs on the slow weights since the last step of Adam
        terms: list[Tensor] = []
        losses, distances = [], []
        for batch in range(_STREAM_BATCHES):
            part = slice(batch * each, (batch + 1) * each)
            x, y = windows[:, part].flatten(0, 1), labels[:, part].flatten()
            leaves = {name: value.detach().requires_grad_() for name, value in split(p, self.start).items()}
            seen = look(self.task.network, x, leaves, groups)
            inner = loss_without_labels(seen, self.task.source, self.weight).sum()
            gradient = _joined_gradient(inner, leaves, keep_graph=True)
            outer = nn.functional.cross_entropy(seen.logits, y) * groups if self.settings.labels else inner
            losses.append(float(outer.detach()) / groups)
            distances.append(torch.stack(batch_distance(seen)).detach())
            if linked is not None:
                terms.append((linked * _joined_gradient(outer, leaves)).sum() / groups)
            if len(terms) == self.settings.unroll:
                rate = 1e-2 * cosine(done)
                state = self.task.stepped(state, self.mgg, torch.stack(terms).sum(), rate)
                memory, linked, terms = {name: value.detach() for name, value in memory.items()}, None, []
            moments, shown = moments_step(moments, gradient)
            u, memory = self.mgg(shown.flatten(0, 1), memory)
            step = -self.settings.alpha * u.reshape(p.shape)
            linked = step if linked is None else linked + step
            p = p + step.detach()
        return self.task.widened(state, distances), sum(losses) / len(losses)

    def check(self, state: MetaState, update: int) -> Check:
        """Stream the held-out episodes, answering before each step."""
        self.mgg.load_state_dict(state_part(state, "weights/"))
        return self.task.judged.check(update, self._streamed(self.task.judged.windows, 1.0))

    def finished(self, state: MetaState, update: int) -> tuple[float, Check]:
        """Return the share of the best weights' steps that the unshifted source can bear, and what it costs."""
        self.mgg.load_state_dict(state_part(state, "best/"))
        return self.task.bearable(_SHARES, self._streamed, update)

    @torch.no_grad()
    def _streamed(self, windows: Tensor, share: float) -> Tensor:
        groups, alpha = len(windows), share * self.settings.alpha
        p = join({name: value.expand(groups, -1) for name, value in self.start.items()})
        moments = {name: value.to(self.task.device) for name, value in moments_start(tuple(p.shape)).items()}
        memory = self.mgg.start(p.numel())
        logits = []
        for x in torch.split(windows, CHECK_WINDOWS, dim=1):
            flat = x.flatten(0, 1)
            seen, gradient = affine_gradient(
                self.task.network, flat, split(p, self.start), self.task.source, self.weight, groups
            )
            logits.append(seen.logits.reshape(groups, x.shape[1], -1))
            moments, shown = moments_step(moments, join(gradient))
            u, memory = self.mgg(shown.flatten(0, 1), memory)
            p = p - alpha * u.reshape(p.shape)
        return torch.cat(logits, dim=1)


def _joined_gradient(loss: Tensor, leaves: Mapping[str, Tensor], keep_graph: bool = False) -> Tensor:
    found = torch.autograd.grad(loss, list(leaves.values()), retain_graph=keep_graph, materialize_grads=True)
    return join(dict(zip(leaves, found, strict=True)))
