"""The teaching of GeneralizeFormer: right answers with the parameters that it generates.

An update goes down

    (1) CE(query; p_new) + h Huber(p_new, p_tent) + 0.001 |p_new - p_source|^2
        h from 1 to 0 over the first third; p_tent is one TENT step of Adam at 1e-3; the query is the batch that was
        looked at, or in half of the updates the windows after it

At the end, streams of the whole source without any shift say how much of every change may be made at test: all of it,
or by fifths less, until it costs at most half a point of accuracy there. RECONSTRUCTED: that limit is ours.
"""

import torch
from torch import Tensor, nn

from acclimate.adaptation.generators.affine_gradient import affine_gradient, batch_distance, logits_with
from acclimate.adaptation.generators.generalizeformer import (
    GeneralizeFormer,
    GeneralizeFormerSettings,
    generated_tensors,
    named,
    tokens_of,
)
from acclimate.adaptation.generators.meta_task import (
    CHECK_WINDOWS,
    Check,
    Judged,
    MetaState,
    MetaTask,
    cosine,
    state_part,
)

__all__ = ["GeneralizeFormerTraining"]

_BATCHES = (16, 32, 64)  # windows; one size per update
_WINDOWS = 256  # of each update
_TENT_RATE = 1e-3
_CLOSENESS = 1e-3
_SHARES = (1.0, 0.8, 0.6, 0.4, 0.2)  # of every change, tried in this order


class GeneralizeFormerTraining:
    """Teach GeneralizeFormer; an update is a step of AdamW.

    Args:
        task: The task of meta-training.
        settings: The settings of GeneralizeFormer.
    """

    check_every = 25

    def __init__(self, task: MetaTask, settings: GeneralizeFormerSettings) -> None:
        self.task, self.settings = task, settings
        self.start = generated_tensors(task.network, settings.classifier)
        width = max(task.network.features, *(value.shape[-1] for value in self.start.values()))
        self.former = GeneralizeFormer(settings, width, task.seed).to(task.device)
        self.weights = {name: value.detach().clone() for name, value in self.former.named_parameters()}

    def advance(self, state: MetaState, number: int, done: float) -> tuple[MetaState, float]:
        """Make one step of AdamW down (1)."""
        self.former.load_state_dict(state_part(state, "weights/"))
        each = _BATCHES[number % len(_BATCHES)]
        windows, labels = self.task.drawn(number, _WINDOWS // each, 2 * each)
        groups = len(windows)
        shown = windows[:, :each].flatten(0, 1)
        p_new, gradients, distance = self._generated(shown, groups)
        asked = slice(each) if number % 2 else slice(each, None)
        logits = logits_with(self.task.network, windows[:, asked].flatten(0, 1), p_new, groups)
        answer = nn.functional.cross_entropy(logits, labels[:, asked].flatten())
        imitation, away = torch.zeros((), device=self.task.device), torch.zeros((), device=self.task.device)
        for name, value in p_new.items():
            tent = self.start[name] - _TENT_RATE * gradients[name].sign()  # Adam's first step
            imitation = imitation + nn.functional.huber_loss(value, tent, reduction="sum") / groups
            away = away + (value - self.start[name]).square().sum() / groups
        loss = answer + max(0.0, 1 - 3 * done) * imitation + _CLOSENESS * away  # (1)
        state = self.task.stepped(state, self.former, loss, 1e-3 * cosine(done), decay=5e-4)
        return self.task.widened(state, [distance]), float(answer.detach())

    def _generated(self, windows: Tensor, groups: int) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        start = {name: value.expand(groups, *value.shape) for name, value in self.start.items()}
        seen, gradients = affine_gradient(self.task.network, windows, start, self.task.source, 0.0, groups)
        tokens = tokens_of(
            self.task.network, seen, gradients, self.task.source, self.former.width, self.settings.classifier
        )
        p_new = named(self.former(tokens), self.task.network, self.settings.classifier)
        return p_new, gradients, torch.stack(batch_distance(seen))

    def check(self, state: MetaState, update: int) -> Check:
        """Answer the first batch of each held-out episode, each from itself."""
        self.former.load_state_dict(state_part(state, "weights/"))
        judged = self.task.judged
        first = Judged(*(each[:, :CHECK_WINDOWS] for each in (judged.windows, judged.labels, judged.source)))
        return first.check(update, self._answered(first.windows, 1.0))

    def finished(self, state: MetaState, update: int) -> tuple[float, Check]:
        """Return the share of the best weights' changes that the unshifted source can bear, and what it costs."""
        self.former.load_state_dict(state_part(state, "best/"))
        return self.task.bearable(_SHARES, self._answered, update)

    @torch.no_grad()
    def _answered(self, windows: Tensor, share: float) -> Tensor:
        logits = []
        for x in torch.split(windows, CHECK_WINDOWS, dim=1):
            flat, groups = x.flatten(0, 1), len(x)
            p_new, _, _ = self._generated(flat, groups)
            p = {name: torch.lerp(self.start[name], value, share) for name, value in p_new.items()}
            logits.append(logits_with(self.task.network, flat, p, groups).reshape(*x.shape[:2], -1))
        return torch.cat(logits, dim=1)
