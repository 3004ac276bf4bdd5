"""Cross-task alignment: teach a second encoder by itself, then make it speak the classifier's language.

After "CTA: Cross-Task Alignment for Better Test Time Training", Barbeau et al., 2025. Its text beyond the abstract and
its code could not be had: the idea is theirs, the procedure is RECONSTRUCTED. With the classifier h(f_s(x)) as it is,
f_u an encoder of the same architecture with fresh weights, p a projector, A a draw of `views`:

    (1) stage 1   f_u, p <- min L_ssl(p(f_u(A(x))), p(f_u(A(x))))                          no labels
    (2) stage 2   f_u, p <- min L_align(f_u(x), f_s(x)) + lambda_u L_ssl                   f_s is the teacher
    (3) stage 3   h' <- logistic regression on f_u(x); what L_ssl is on the source

L_align turns directions alone, and a head with a bias reads lengths too; so h' is fitted anew. Nothing of the
classifier changes. L_ssl may be another task (`tasks`); and ``joint`` teaches the baseline that CTA argues against, one
encoder for task and labels at once, from the start and for as many epochs.

All that a run knows after an epoch is a flat mapping of tensors, so that a killed one goes on from there bit for bit.
"""

import copy
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from acclimate.adaptation.alignment.aligned import Aligned, AlignmentSettings
from acclimate.adaptation.alignment.contrastive import alignment_loss
from acclimate.adaptation.alignment.tasks import Task
from acclimate.adaptation.alignment.views import Views
from acclimate.adaptation.errors import ConfigError, DataError
from acclimate.adaptation.method import SourceContext, State
from acclimate.adaptation.model.batch_norms import settle_statistics
from acclimate.adaptation.model.network import Network
from acclimate.adaptation.model.source_units import SourceUnits
from acclimate.adaptation.state.optimizer_state import kept, restore

__all__ = ["Progress", "align"]

Progress = Callable[[str, int, int, float], None]  # stage, epoch from 1, epochs, mean loss in nats

_BATCH = 128
_LEARNING_RATE = 1e-3
_WEIGHT_DECAY = 1e-4
_HEAD_ITERATIONS = 100
_CALIBRATION_BATCH = 64
_LEAST = 2  # windows of a batch: one has no negative


def align(
    context: SourceContext,
    labels: Tensor,
    settings: AlignmentSettings,
    epochs: int,
    unsafe: Sequence[str] = (),
    progress: Progress | None = None,
    state: State | None = None,
    keep: Callable[[State], None] = lambda state: None,
) -> Aligned:
    """Teach the second encoder of a source.

    Args:
        context: The source; all of its windows are learned from, and its seed decides every draw.
        labels: (n,) of `SourceContext.all_windows`.
        settings: The settings of the alignment.
        epochs: The epochs of each stage, at least 1.
        unsafe: Kinds of `views.VIEWS` that the task forbids.
        progress: A function called after each epoch.
        state: The state to go on from, of a run with equal arguments.
        keep: A function called with the state after each epoch.

    Raises:
        ConfigError: The labels do not fit the windows, or no kind of view is left.
        DataError: Training leads to numbers that are not finite.
    """
    windows = context.all_windows
    if len(labels) != len(windows) or len(windows) < 2 * _LEAST:
        raise ConfigError(
            f"expected a label for each of at least {2 * _LEAST} windows, got {len(labels)}, {len(windows)}"
        )
    network = Network(context.model)

    def frozen(some: Tensor) -> Tensor:
        return network.forward(some).features

    task = Task(settings, SourceUnits(context), Views(_length(windows), unsafe), frozen)
    generator = torch.Generator().manual_seed(context.seed)
    student = _Student(context.model, network, task, windows[0].numel(), context.seed)
    with torch.no_grad():
        taught = torch.cat([frozen(chunk) for chunk in _chunks(windows)])

    def ssl(rows: Tensor) -> Tensor:
        return task.loss(student.features, dict(student.projector.named_parameters()), windows[rows], generator)

    def alignment(rows: Tensor) -> Tensor:
        known = labels[rows] if settings.class_masked else None
        loss = alignment_loss(student.features(windows[rows]), taught[rows], settings.temperature, known)
        return loss + settings.ssl_weight * ssl(rows)

    def supervised(rows: Tensor) -> Tensor:
        return cross_entropy(student.network(windows[rows]), labels[rows]) + settings.ssl_weight * ssl(rows)

    if settings.joint:
        stages = [_Stage("joint", supervised, 2 * epochs)]
    else:
        stages = [_Stage("self-supervised", ssl, epochs)]  # (1)
        if settings.aligned:
            stages.append(_Stage("alignment", alignment, epochs))  # (2)
    draws = _Draws(np.random.default_rng([context.seed, 31]), generator)
    _teach(student, stages, len(windows), draws, progress, state, keep)
    settle_statistics(student.network, windows, draws.order)
    encoder, projector = student.tensors()

    def encode(some: Tensor) -> Tensor:
        return network.forward(some, encoder).features

    with torch.no_grad():
        features = torch.cat([encode(chunk) for chunk in _chunks(windows)])
        losses = torch.stack([task.loss(encode, projector, some, generator) for some in _mixed(windows, generator)])
    head = student.head() if settings.joint else _fit_head(features, labels, network.classes)  # (3)
    a, b = normalize(features, dim=1), normalize(taught, dim=1)
    matched = float((a * b).sum(dim=1).mean())
    everything = float(a.mean(dim=0) @ b.mean(dim=0))
    mismatched = (everything * len(a) - matched) / (len(a) - 1)
    ssl_mean, ssl_std = float(losses.mean()), float(losses.std(correction=0))
    return Aligned(settings, encoder, head, projector, tuple(unsafe), ssl_mean, ssl_std, matched, mismatched)


class _Student(nn.Module):
    """An encoder of the classifier's architecture with fresh weights, and a projector."""

    def __init__(self, model: nn.Module, network: Network, task: Task, values: int, seed: int) -> None:
        super().__init__()
        self.network = copy.deepcopy(model).requires_grad_(True)
        self._head, self._known, self._seen = network.head, set(network.tensors), torch.empty(0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for module in self.network.modules():
                reset = getattr(module, "reset_parameters", None)
                if reset is not None:
                    reset()
            self.projector = task.projector(network.features, values)
        self.network.get_submodule(network.head).register_forward_pre_hook(self._look)

    def _look(self, _head: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._seen = inputs[0]

    def features(self, windows: Tensor) -> Tensor:
        """Return what the head would see, (B, F)."""
        self.network(windows)
        seen, self._seen = self._seen, torch.empty(0)
        return seen

    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return copies of the encoder's tensors, without the head's, and of the projector's."""
        named = (*self.network.named_parameters(), *self.network.named_buffers())
        mine = {n: t.detach().clone() for n, t in named if n in self._known and not n.startswith(f"{self._head}.")}
        return mine, {n: t.detach().clone() for n, t in self.projector.named_parameters()}

    def head(self) -> dict[str, Tensor]:
        """Return copies of the head's weight and bias."""
        head = self.network.get_submodule(self._head)
        assert isinstance(head, nn.Linear)  # `Network` chose it
        bias = torch.zeros(head.out_features) if head.bias is None else head.bias.detach().clone()
        return {"weight": head.weight.detach().clone(), "bias": bias}


@dataclass(frozen=True)
class _Stage:
    name: str
    draw: Callable[[Tensor], Tensor]  # rows to a loss
    epochs: int


@dataclass(frozen=True)
class _Draws:
    """The source of all random draws: the order of windows, and views."""

    order: np.random.Generator
    views: torch.Generator

    def state(self) -> dict[str, Tensor]:
        order = json.dumps(self.order.bit_generator.state).encode()
        return {"order": torch.frombuffer(bytearray(order), dtype=torch.uint8), "views": self.views.get_state()}

    def restore(self, state: State) -> None:
        self.order.bit_generator.state = json.loads(state["order"].numpy().tobytes())
        self.views.set_state(state["views"])


def _teach(
    student: _Student,
    stages: Sequence[_Stage],
    count: int,
    draws: _Draws,
    progress: Progress | None,
    state: State | None,
    keep: Callable[[State], None],
) -> None:
    steps = max(1, round(count / _BATCH))
    named = dict(student.named_parameters())
    done = 0  # epochs of all stages
    if state is not None:
        done = int(state["epochs"])
        student.load_state_dict({name: state[f"student/{name}"] for name in student.state_dict()})
        draws.restore(state)
    student.train()
    before = 0
    for stage in stages:
        optimizer = torch.optim.AdamW(student.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
        if state is not None and before < done:
            restore(optimizer, named, state, "optimizer")
        for epoch in range(max(0, done - before), stage.epochs):
            total = 0.0
            for step, rows in enumerate(np.array_split(draws.order.permutation(count), steps), steps * epoch):
                optimizer.param_groups[0]["lr"] = _cosine(step / (steps * stage.epochs))
                loss = stage.draw(torch.from_numpy(rows))
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total += float(loss.detach())
            if not np.isfinite(total):
                raise DataError(
                    f"{stage.name} training diverged in epoch {epoch + 1} (loss {total / steps})", "diverged"
                )
            keep(
                {
                    "epochs": torch.tensor(before + epoch + 1),
                    **{f"student/{name}": value for name, value in student.state_dict().items()},
                    **kept(optimizer, named, "optimizer"),
                    **draws.state(),
                }
            )
            if progress is not None:
                progress(stage.name, epoch + 1, stage.epochs, total / steps)
        before += stage.epochs


def _cosine(share: float) -> float:
    """Return the learning rate after a share of a stage's steps."""
    return _LEARNING_RATE * (1 + math.cos(math.pi * share)) / 2


def _fit_head(features: Tensor, labels: Tensor, classes: int) -> dict[str, Tensor]:
    """Return a logistic regression on standardised features, written for raw ones; classes of equal influence."""
    std, mean = torch.std_mean(features, dim=0)
    scaled = (features - mean) / (std + 1e-6)
    counts = torch.bincount(labels, minlength=classes).clamp(min=1)
    importance = (len(labels) / (classes * counts)).clamp(max=10.0)
    weight = torch.zeros(classes, features.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_HEAD_ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(scaled @ weight.T + bias, labels, importance) + _WEIGHT_DECAY * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    fitted = weight.detach() / (std + 1e-6)
    return {"weight": fitted, "bias": bias.detach() - fitted @ mean}


def _mixed(windows: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield the windows in a drawn order, in batches as a device has them; what is left over is left out."""
    order = torch.randperm(len(windows), generator=generator)
    size = min(_CALIBRATION_BATCH, len(windows))
    for at in range(0, len(windows) - size + 1, size):
        yield windows[order[at : at + size]]


def _chunks(windows: Tensor) -> Iterator[Tensor]:
    return (windows[at : at + 256] for at in range(0, len(windows), 256))


def _length(windows: Tensor) -> int:
    return windows.shape[-1] if windows.dim() > 2 else 1
