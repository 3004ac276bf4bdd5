"""Meta-training: teach a generator on shifted, labelled source windows; stop by groups of the source held out.

Both generators are taught the same way: an update draws episodes, lets the generator act, and asks for right answers,

    MGG               cross-entropy of the *next* batch of the episode after its step; first order: the gradients that
                      MGG is shown are constants to it, so with p_t the coordinates and phi the slow weights
                      (1) dL/dphi = sum_t dCE(x_{t+1}; p_t)/dp_t . dp_t/dphi,   over `unroll` steps, then Adam
    GeneralizeFormer  (2) CE(query; p_new) + h Huber(p_new, p_tent) + 0.001 |p_new - p_source|^2
                      h from 1 to 0 over the first third; p_tent is one TENT step of Adam at 1e-3; the query is the
                      batch that was looked at, or in half of the updates the windows after it

Every so many updates the generator is judged on fixed episodes of the held-out groups, by cross-entropy; the best
weights are kept, and training ends when they have not changed for a while. At the end, long episodes of the whole
source without any shift say how large MGG's steps may be at test: alpha, halved up to three times until it costs at
most a quarter of a point of accuracy there. Targets are never seen.

All that a run knows is a flat mapping of tensors (`MetaState`), so that a killed run goes on from its last checkpoint
to the same result, bit for bit on one machine. Several processes share the episodes of each update and the mean of
their gradients (`Share`), and so do what one process does, up to rounding.
"""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from adaptation.errors import ConfigError, DataError
from adaptation.generators.affine_gradient import (
    affine_gradient,
    batch_distance,
    discrepancy_weight,
    join,
    look,
    loss_without_labels,
    source_features,
    split,
)
from adaptation.generators.episodes import Episodes, Recordings, part_groups
from adaptation.generators.generalizeformer import GeneralizeFormer, GeneralizeFormerSettings, named, tokens_of
from adaptation.generators.generalizeformer import generated_tensors as generated
from adaptation.generators.generator import Generator, Settings
from adaptation.generators.mgg import Mgg, MggSettings, moments_start, moments_step
from adaptation.generators.valid_range import ValidRange
from adaptation.methods.network import Network
from adaptation.methods.optimizers import adam_start, adam_step, all_finite

__all__ = ["ALONE", "Check", "MetaState", "MetaTrained", "Share", "default_updates", "meta_train"]

MetaState = Mapping[str, Tensor]

_BATCHES = (16, 32, 64)  # windows; one size per update
_WINDOWS = 256  # of each update, GeneralizeFormer
_STREAMS, _STREAM_BATCHES = 4, 16  # of each update, MGG: episodes, and their batches
_CHECK_EPISODES, _CHECK_BATCHES, _CHECK_WINDOWS = 8, 8, 64
_STEPS = (1.0, 0.5, 0.25, 0.125)  # of alpha, tried in this order
_MOST_HARM = 0.0025  # share of right answers that a step may cost where nothing is shifted
_PATIENCE = 8  # checks
_TENT_RATE = 1e-3
_CLOSENESS = 1e-3
_LARGEST_NORM = 1.0


@dataclass(frozen=True)
class Share:
    """The part of every update that this process does.

    Attributes:
        rank, of: This process and how many there are.
        mean, largest: Take a tensor of every process and give all of them the mean, or the largest.
    """

    rank: int = 0
    of: int = 1
    mean: Callable[[Tensor], Tensor] = lambda tensor: tensor
    largest: Callable[[Tensor], Tensor] = lambda tensor: tensor


ALONE = Share()


@dataclass(frozen=True)
class Check:
    """How the generator did on episodes of the held-out groups.

    Attributes:
        update: After which update.
        loss, source_loss: Cross-entropy with it and of the source, nats.
        accuracy, source_accuracy: 0 to 1.
    """

    update: int
    loss: float
    source_loss: float
    accuracy: float
    source_accuracy: float


@dataclass(frozen=True, eq=False)
class MetaTrained:
    """The result.

    Attributes:
        generator: With the best weights.
        checks: All, in order.
        best: The check whose weights were kept.
        updates: How many were made.
    """

    generator: Generator
    checks: tuple[Check, ...]
    best: Check
    updates: int

    @property
    def helps(self) -> bool:
        """Whether it beat the source on the held-out groups."""
        return self.best.loss < self.best.source_loss


Progress = Callable[[int, int, float, Check | None], None]  # updates done, at most, loss of the last, last check


def default_updates(settings: Settings) -> int:
    """Return after how many updates a run ends at the latest."""
    return 32 if isinstance(settings, MggSettings) else 400


def meta_train(
    model: nn.Module,
    source: Recordings,
    settings: Settings,
    seed: int,
    updates: int | None = None,
    state: MetaState | None = None,
    keep: Callable[[MetaState], None] = lambda state: None,
    progress: Progress | None = None,
    device: str = "cpu",
    share: Share = ALONE,
) -> MetaTrained:
    """Meta-train a generator for a source model.

    Args:
        model: Trained classifier in evaluation mode.
        source: All labelled source windows.
        settings: What to train.
        seed: Of the initial weights, the groups held out, and all episodes.
        updates: At most so many, from 1; see `default_updates`.
        state: From ``keep`` of an earlier run with the same arguments, to go on from.
        keep: Called with the state after every check.
        progress: Called after every update.
        device: Where torch computes.
        share: See `Share`; by default this process does everything.

    Raises:
        ConfigError: ``updates`` is below 1, the state is of another training, or processes cannot share evenly.
        DataError: The source is too small, or training leads to numbers that are not finite.
    """
    updates = default_updates(settings) if updates is None else updates
    if updates < 1:
        raise ConfigError(f"updates: expected at least 1, got {updates}")
    if _STREAMS % share.of:
        raise ConfigError(f"processes: expected 1, 2 or 4, to share {_STREAMS} episodes evenly, got {share.of}")
    if not np.isfinite(source.windows).all():
        raise DataError("expected finite windows to meta-train on, found missing or infinite samples", "not_finite")
    training: _Training
    if isinstance(settings, MggSettings):
        training = _MggTraining(model, source, settings, seed, device, share)
    else:
        training = _GeneralizeFormerTraining(model, source, settings, seed, device, share)
    state = _start(training, seed) if state is None else _resumed(state, training, seed, device)
    while int(state["update"]) < updates and not _out_of_patience(state, training.check_every):
        number = int(state["update"])
        state, loss = training.advance(state, number, number / updates)
        state = {**state, "update": state["update"] + 1}
        check = None
        if (number + 1) % training.check_every == 0 or number + 1 == updates:
            check = training.check(state, number + 1)
            state = _judged(state, check)
            keep(state)
        if progress is not None:
            progress(number + 1, updates, loss, check)
    checks = _checks(state)
    alpha = training.safe_alpha(state) if isinstance(training, _MggTraining) else None
    return MetaTrained(
        Generator(
            settings,
            {name: value.cpu() for name, value in _part(state, "best/").items()},
            ValidRange(*state["range"].tolist()),
            alpha,
        ),
        checks,
        min(checks, key=lambda check: check.loss),
        int(state["update"]),
    )


class _Base:
    """What both trainings hold: the frozen network on its device, episodes to train on, and fixed ones to judge by."""

    def __init__(self, model: nn.Module, source: Recordings, seed: int, device: str, share: Share) -> None:
        self.network = Network(copy.deepcopy(model).to(device))
        self.device, self.share = device, share
        taught, held_out = part_groups(source, seed)
        self.episodes = Episodes(taught, source.windows, seed)
        self.judged = self.fixed(Episodes(held_out, source.windows, seed + 1_000_003), _CHECK_BATCHES)
        rows = torch.linspace(0, len(source.windows) - 1, min(512, len(source.windows))).long()
        self.source = source_features(self.network, torch.from_numpy(source.windows)[rows].to(device))

    def fixed(self, episodes: Episodes, batches: int) -> tuple[Tensor, Tensor]:
        """Return the first episodes, of so many batches: windows (e, n, C, L), labels (e, n)."""
        windows, labels = episodes.draw(range(_CHECK_EPISODES), batches * _CHECK_WINDOWS)
        return windows.to(self.device), labels.to(self.device)

    def drawn(self, number: int, episodes: int, windows: int) -> tuple[Tensor, Tensor]:
        """Return this process's share of the episodes of an update."""
        mine = range(number * episodes + self.share.rank, (number + 1) * episodes, self.share.of)
        drawn = self.episodes.draw(mine, windows)
        return drawn[0].to(self.device), drawn[1].to(self.device)

    def stepped(
        self, state: MetaState, module: nn.Module, loss: Tensor, rate: float, decay: float = 0.0
    ) -> dict[str, Tensor]:
        """Return the state after one step of Adam down a loss, the gradient's norm cut to 1, and move the module."""
        weights = dict(module.named_parameters())
        found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True, materialize_grads=True)
        gradients = {name: self.share.mean(value) for name, value in zip(weights, found, strict=True)}
        if not all_finite(gradients.values()):
            raise DataError("meta-training led to numbers that are not finite; expected scaled, finite windows")
        norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients.values()))
        cut = min(1.0, _LARGEST_NORM / (norm + 1e-12))
        gradients = {name: cut * gradient for name, gradient in gradients.items()}
        old = {name: value.detach() * (1 - rate * decay) for name, value in weights.items()}
        new = adam_step(old, gradients, _part(state, "adam/"), rate)
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(new[name])
        moved = {f"weights/{name}": new[name] for name in weights}
        return {**state, **moved, **{f"adam/{name}": value for name, value in new.items() if name not in weights}}

    def widened(self, state: MetaState, distances: list[Tensor]) -> MetaState:
        """Return the state with the range of valid statistics widened to these (2,) and (2, groups)."""
        each = torch.stack([distance.amax(dim=1) for distance in distances])
        met = torch.where(torch.isfinite(each), each, 0.0).amax(dim=0)
        return {**state, "range": torch.maximum(state["range"], self.share.largest(met).cpu().double())}


class _MggTraining(_Base):
    check_every = 4

    def __init__(
        self, model: nn.Module, source: Recordings, settings: MggSettings, seed: int, device: str, share: Share
    ) -> None:
        super().__init__(model, source, seed, device, share)
        self.settings = settings
        self.unshifted = Episodes(source, source.windows, seed + 2_000_003, clean_share=1.0)
        self.mgg = Mgg(settings, seed).to(device)
        self.weights = {name: value.detach().clone() for name, value in self.mgg.named_parameters()}
        self.start = {name: self.network.tensors[name] for name in self.network.affine}
        self.weight = discrepancy_weight(self.network.classes)

    def advance(self, state: MetaState, number: int, done: float) -> tuple[MetaState, float]:
        """Follow a few episodes from their start, with a step of Adam every `unroll` batches: (1)."""
        _load(self.mgg, state)
        each = _BATCHES[number % 2]
        windows, labels = self.drawn(number, _STREAMS, _STREAM_BATCHES * each)
        groups = len(windows)
        p = join({name: value.expand(groups, -1) for name, value in self.start.items()})  # (groups, P)
        moments = {name: value.to(self.device) for name, value in moments_start(tuple(p.shape)).items()}
        memory = self.mgg.start(p.numel())  # learned too: the first step is linked to it
        linked: Tensor | None = None  # how p hangs on the slow weights since the last step of Adam
        terms: list[Tensor] = []
        losses, distances = [], []
        for batch in range(_STREAM_BATCHES):
            part = slice(batch * each, (batch + 1) * each)
            x, y = windows[:, part].flatten(0, 1), labels[:, part].flatten()
            leaves = {name: value.detach().requires_grad_() for name, value in split(p, self.start).items()}
            seen = look(self.network, x, leaves, groups)
            inner = loss_without_labels(seen, self.source, self.weight).sum()
            gradient = _joined_gradient(inner, leaves, keep_graph=True)
            outer = nn.functional.cross_entropy(seen.logits, y) * groups if self.settings.labels else inner
            losses.append(float(outer.detach()) / groups)
            distances.append(torch.stack(batch_distance(seen)).detach())
            if linked is not None:
                terms.append((linked * _joined_gradient(outer, leaves)).sum() / groups)
            if len(terms) == self.settings.unroll:
                rate = 1e-2 * _cosine(done)
                state = self.stepped(state, self.mgg, torch.stack(terms).sum(), rate)
                memory, linked, terms = {name: value.detach() for name, value in memory.items()}, None, []
            moments, shown = moments_step(moments, gradient)
            u, memory = self.mgg(shown.flatten(0, 1), memory)
            step = -self.settings.alpha * u.reshape(p.shape)
            linked = step if linked is None else linked + step
            p = p + step.detach()
        return self.widened(state, distances), sum(losses) / len(losses)

    def check(self, state: MetaState, update: int) -> Check:
        """Stream the held-out episodes, answering before each step."""
        _load(self.mgg, state)
        return self._streamed(update, self.judged, self.settings.alpha)

    def safe_alpha(self, state: MetaState) -> float:
        """Return the largest step that costs unshifted episodes next to nothing, of the best weights."""
        self.mgg.load_state_dict(_part(state, "best/"))
        clean = self.fixed(self.unshifted, _STREAM_BATCHES)
        for share in _STEPS:
            alpha = share * self.settings.alpha
            found = self._streamed(0, clean, alpha)
            if found.accuracy >= found.source_accuracy - _MOST_HARM:
                break
        return alpha

    @torch.no_grad()
    def _streamed(self, update: int, episodes: tuple[Tensor, ...], alpha: float) -> Check:
        windows, labels = episodes
        groups = len(windows)
        p = join({name: value.expand(groups, -1) for name, value in self.start.items()})
        moments = {name: value.to(self.device) for name, value in moments_start(tuple(p.shape)).items()}
        memory = self.mgg.start(p.numel())
        logits, source = [], []
        for x in torch.split(windows, _CHECK_WINDOWS, dim=1):
            flat = x.flatten(0, 1)
            seen, gradient = affine_gradient(self.network, flat, split(p, self.start), self.source, self.weight, groups)
            logits.append(seen.logits.reshape(groups, x.shape[1], -1))
            source.append(self.network.forward(flat).logits.reshape(groups, x.shape[1], -1))
            moments, shown = moments_step(moments, join(gradient))
            u, memory = self.mgg(shown.flatten(0, 1), memory)
            p = p - alpha * u.reshape(p.shape)
        return _compared(update, torch.cat(logits, dim=1), torch.cat(source, dim=1), labels)


class _GeneralizeFormerTraining(_Base):
    check_every = 25

    def __init__(
        self,
        model: nn.Module,
        source: Recordings,
        settings: GeneralizeFormerSettings,
        seed: int,
        device: str,
        share: Share,
    ) -> None:
        super().__init__(model, source, seed, device, share)
        self.settings = settings
        self.start = generated(self.network, settings.classifier)
        width = max(self.network.features, *(value.shape[-1] for value in self.start.values()))
        self.former = GeneralizeFormer(settings, width, seed).to(device)
        self.weights = {name: value.detach().clone() for name, value in self.former.named_parameters()}

    def advance(self, state: MetaState, number: int, done: float) -> tuple[MetaState, float]:
        """Make one step of AdamW down (2)."""
        _load(self.former, state)
        each = _BATCHES[number % len(_BATCHES)]
        windows, labels = self.drawn(number, _WINDOWS // each, 2 * each)
        groups = len(windows)
        shown = windows[:, :each].flatten(0, 1)
        p_new, gradients, distance = self._generated(shown, groups)
        asked = slice(each) if number % 2 else slice(each, None)
        logits = look(self.network, windows[:, asked].flatten(0, 1), p_new, groups).logits
        answer = nn.functional.cross_entropy(logits, labels[:, asked].flatten())
        imitation, away = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        for name, value in p_new.items():
            tent = self.start[name] - _TENT_RATE * gradients[name].sign()  # Adam's first step
            imitation = imitation + nn.functional.huber_loss(value, tent, reduction="sum") / groups
            away = away + (value - self.start[name]).square().sum() / groups
        loss = answer + max(0.0, 1 - 3 * done) * imitation + _CLOSENESS * away  # (2)
        state = self.stepped(state, self.former, loss, 1e-3 * _cosine(done), decay=5e-4)
        return self.widened(state, [distance]), float(answer.detach())

    def _generated(self, windows: Tensor, groups: int) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        start = {name: value.expand(groups, *value.shape) for name, value in self.start.items()}
        seen, gradients = affine_gradient(self.network, windows, start, self.source, 0.0, groups)
        tokens = tokens_of(self.network, seen, gradients, self.source, self.former.width, self.settings.classifier)
        p_new = named(self.former(tokens), self.network, self.settings.classifier)
        return p_new, gradients, torch.stack(batch_distance(seen))

    @torch.no_grad()
    def check(self, state: MetaState, update: int) -> Check:
        """Answer batches of the held-out episodes, each from itself."""
        _load(self.former, state)
        windows, labels = self.judged
        each = _BATCHES[-1]
        windows, labels = windows[:, :each], labels[:, :each]
        flat, groups = windows.flatten(0, 1), len(windows)
        p_new, _, _ = self._generated(flat, groups)
        logits = look(self.network, flat, p_new, groups).logits
        return _compared(update, logits, self.network.forward(flat).logits, labels)


_Training = _MggTraining | _GeneralizeFormerTraining


def _joined_gradient(loss: Tensor, leaves: Mapping[str, Tensor], keep_graph: bool = False) -> Tensor:
    found = torch.autograd.grad(loss, list(leaves.values()), retain_graph=keep_graph, materialize_grads=True)
    return join(dict(zip(leaves, found, strict=True)))


def _cosine(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * done))


def _compared(update: int, logits: Tensor, source: Tensor, labels: Tensor) -> Check:
    truth = labels.flatten()
    pairs = [part.reshape(len(truth), -1) for part in (logits, source)]
    losses = [float(nn.functional.cross_entropy(part, truth)) for part in pairs]
    right = [float((part.argmax(dim=1) == truth).float().mean()) for part in pairs]
    return Check(update, losses[0], losses[1], right[0], right[1])


def _part(state: MetaState, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _start(training: _Training, seed: int) -> MetaState:
    weights = training.weights
    adam = adam_start(weights)
    return {
        **{f"weights/{name}": value for name, value in weights.items()},
        **{f"best/{name}": value for name, value in weights.items()},
        **{f"adam/{name}": value for name, value in adam.items()},
        "seed": torch.tensor(seed),
        "update": torch.tensor(0),
        "range": torch.zeros(2, dtype=torch.float64),
        "checks": torch.zeros(0, 5, dtype=torch.float64),
    }


def _resumed(state: MetaState, training: _Training, seed: int, device: str) -> MetaState:
    start = _start(training, seed)
    shapes = [{name: value.shape for name, value in each.items() if name != "checks"} for each in (start, state)]
    if shapes[0] != shapes[1] or int(state["seed"]) != seed:
        raise ConfigError("the checkpoint is of another training: expected the same network, settings and seed")
    return {name: value.to(start[name].device) for name, value in state.items()}


def _load(module: nn.Module, state: MetaState) -> None:
    module.load_state_dict(_part(state, "weights/"))


def _judged(state: MetaState, check: Check) -> MetaState:
    best = [float(row[1]) for row in state["checks"]]
    row = torch.tensor(
        [[check.update, check.loss, check.source_loss, check.accuracy, check.source_accuracy]], dtype=torch.float64
    )
    judged = {**state, "checks": torch.cat((state["checks"], row))}
    if not best or check.loss < min(best):
        judged.update({f"best/{name}": value for name, value in _part(state, "weights/").items()})
    return judged


def _checks(state: MetaState) -> tuple[Check, ...]:
    return tuple(Check(int(row[0]), *row[1:]) for row in state["checks"].tolist())


def _out_of_patience(state: MetaState, check_every: int) -> bool:
    checks = _checks(state)
    if not checks:
        return False
    best = min(checks, key=lambda check: check.loss)
    return checks[-1].update - best.update >= _PATIENCE * check_every
