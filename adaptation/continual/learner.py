"""Learning from labels as they come: one pure step, (state, arrived labels) -> (state, report).

    learner = Learner(model, remembered source windows, settings)
    state = learner.start()
    state, report = learner.learn(state, arrived)

A way of learning is a sum of parts, such as ``ftp+er``; each part is one idea, in a file of its own:

    naive             AdamW on the labels that came last, and nothing else
    ftp, spd, tpgm    the step ends near the anchor (`adaptation.projection`); ``ftp-warm`` and ``ftp-relative`` are
                      FTP with a first step taken whole, and with that and radii that move by a tenth of the deviation
    l2sp, ewc, lwf    leaving it has a price
    er, agem          remembered windows: half of every batch, or a veto (`adaptation.methods.reservoir`)
    iwms              as er, but of what is remembered that which is like the newest windows without labels

    (1) labels are gathered until `least` are there, or the caller asks for an update
    (2) `steps` steps: a batch of the last `recent` labels, half of it from memory with ``er`` and ``iwms``
    (3) the running statistics of BatchNorm stay the anchor's

(3) because labels come a few at a time and one class after another: statistics of such a batch are those of the class.
Weights, gamma and beta move. Memory begins with windows of the source and is even over pairs of class and device.

State is a flat mapping of named tensors, as in `adaptation.methods.method`: it saves with safetensors and goes on bit
for bit. Everything random comes from a generator in it.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adaptation.continual.optimizer_state import kept, restore
from adaptation.continual.penalties import agem, ewc, fisher, lwf
from adaptation.continual.settings import FTP_OPTIONS, LearnerSettings, parse_method
from adaptation.continual.similarity import alike
from adaptation.errors import ConfigError
from adaptation.methods.method import State
from adaptation.methods.optimizers import all_finite, gradients_of
from adaptation.methods.random_state import random_start, resumed
from adaptation.methods.reservoir import offer, start_reservoir
from adaptation.projection.ftp import AdamFTP
from adaptation.projection.l2sp import l2_sp
from adaptation.projection.spd import AdamSPD
from adaptation.projection.tpgm import TPGM

__all__ = ["Arrived", "Learner", "Report"]

_ABOUT_ANCHOR = ("optimizer", "radius", "radius_optimizer")


@dataclass(frozen=True)
class Report:
    """What one call of `Learner.learn` did.

    Attributes:
        steps: Taken; 0 where too few labels were there.
        loss: Mean cross-entropy of the steps' batches, in nats; None without steps.
        skipped: Steps that were not taken because something was not finite.
        waiting: Labels that wait for the next update.
    """

    steps: int
    loss: float | None
    skipped: int
    waiting: int


@dataclass(frozen=True, eq=False)
class Arrived:
    """Labels that have come.

    Attributes:
        windows: (n, C, L) raw, n may be 0.
        labels: (n,).
        devices: (n,) numbers of devices from 0; 0 is the source.
        unlabelled: (m, C, L) windows that have come without a label, if any.
    """

    windows: Tensor
    labels: Tensor
    devices: Tensor
    unlabelled: Tensor | None = None


class Learner:
    """Configure a way of learning from a source.

    Args:
        model: The source, in evaluation mode; it is copied.
        source: Labelled windows of the source, which memory begins with and EWC looks at; devices are ignored.
        classes: K.
        settings: How it learns.
        seed: Of everything random.

    Raises:
        ConfigError: The model is in training mode, or has no parameter that asks for a gradient.
    """

    def __init__(self, model: nn.Module, source: Arrived, classes: int, settings: LearnerSettings, seed: int) -> None:
        if model.training:
            raise ConfigError("the source is in training mode; call eval() on the trained network first")
        self._model = copy.deepcopy(model)
        self._source, self._classes, self.settings, self._seed = source, classes, settings, seed
        self._parts = parse_method(settings.method)
        self._names = tuple(name for name, value in self._model.named_parameters() if value.requires_grad)
        if not self._names:
            raise ConfigError("the network has no parameter that asks for a gradient: there is nothing to learn")

    def start(self) -> State:
        """Return the state of a source that has learned nothing yet."""
        parameters = dict(self._model.named_parameters())
        values = {name: parameters[name].detach().clone() for name in self._names}
        shape = self._source.windows.shape[1:]
        none = torch.zeros(0, dtype=torch.int64)
        state: dict[str, Tensor] = {
            **{f"model/{name}": value for name, value in values.items()},
            **{f"anchor/{name}": value for name, value in values.items()},
            "recent/windows": torch.zeros(0, *shape),
            "recent/labels": none,
            "unlabelled/windows": torch.zeros(0, *shape),
            "waiting": torch.zeros((), dtype=torch.int64),
            "generator": random_start(self._seed),
        }
        if "ewc" in self._parts:
            found = fisher(self._model, self._source.windows, self._source.labels)
            state.update({f"fisher/{name}": found[name] for name in self._names})
        if self._remembers:
            empty = start_reservoir(self.settings.memory, shape, self._classes, self._seed)
            begin = Arrived(self._source.windows, self._source.labels, torch.zeros_like(self._source.labels))
            state.update(self._remember(empty, begin))
        return state

    def learn(self, state: State, arrived: Arrived, finish: bool = False) -> tuple[State, Report]:
        """Take labels in, and learn where enough are there: (1), (2).

        Args:
            state: From `start` or the last call.
            arrived: What has come since; may be empty.
            finish: Learn from what waits, however little it is.
        """
        new = dict(state)
        recent = self.settings.recent
        new["recent/windows"] = torch.cat([state["recent/windows"], arrived.windows])[-recent:]
        new["recent/labels"] = torch.cat([state["recent/labels"], arrived.labels])[-recent:]
        if "iwms" in self._parts and arrived.unlabelled is not None:
            seen = torch.cat([state["unlabelled/windows"], arrived.unlabelled])
            new["unlabelled/windows"] = seen[-self.settings.batch // 2 :]
        if self._remembers and len(arrived.labels):
            new.update(self._remember(state, arrived))
        waiting = int(state["waiting"]) + len(arrived.labels)
        ready = waiting >= (1 if finish else self.settings.least)
        new["waiting"] = torch.tensor(0 if ready else waiting)
        if not ready:
            return new, Report(0, None, 0, waiting)
        updated, report = self._update(new)
        return updated, report

    def model(self, state: State) -> nn.Module:
        """Return the network of a state, in evaluation mode."""
        model = copy.deepcopy(self._model)
        with torch.no_grad():
            for name, value in model.named_parameters():
                if f"model/{name}" in state:
                    value.copy_(state[f"model/{name}"])
        return model

    def anchored_here(self, state: State) -> State:
        """Return the state with its model as the new anchor, as after a validation that it passed.

        What the optimizer has learned about the old anchor is dropped.
        """
        kept = {name: value for name, value in state.items() if name.split("/")[0] not in _ABOUT_ANCHOR}
        return {**kept, **{f"anchor/{name}": state[f"model/{name}"] for name in self._names}}

    @property
    def _remembers(self) -> bool:
        return bool(self._parts & {"er", "iwms", "agem"})

    def _remember(self, memory: State, arrived: Arrived) -> dict[str, Tensor]:
        cells = arrived.devices * self._classes + arrived.labels
        return {n: v for n, v in offer(memory, arrived.windows, cells).items() if n.startswith("memory/")}

    def _update(self, state: dict[str, Tensor]) -> tuple[State, Report]:
        model = self.model(state)
        named = {name: value for name, value in model.named_parameters() if value.requires_grad}
        anchor = {name: state[f"anchor/{name}"] for name in named}
        optimizer = self._optimizer(named, anchor)
        restore(optimizer, named, state, "optimizer")
        tpgm = self._tpgm(named, anchor, state)
        generator = resumed(state["generator"])
        remembered = self._remembered(model, state)
        losses: list[float] = []
        for _ in range(self.settings.steps):
            loss, gradients = self._gradients(model, named, anchor, state, remembered, generator)
            if not all_finite((loss, *gradients.values())):
                continue
            for name, value in named.items():
                value.grad = gradients[name]
            optimizer.step()
            losses.append(float(loss))
            if tpgm is not None:
                tpgm.step(self._held_out_loss(model, state, generator))
        new = {**state, "generator": generator.get_state(), **kept(optimizer, named, "optimizer")}
        new.update({f"model/{name}": value.detach().clone() for name, value in named.items()})
        if tpgm is not None:
            new.update({f"radius/{name}": radius.detach().clone() for name, radius in tpgm.radii.items()})
            new.update(kept(tpgm.optimizer, tpgm.radii, "radius_optimizer"))
        mean = sum(losses) / len(losses) if losses else None
        return new, Report(len(losses), mean, self.settings.steps - len(losses), 0)

    def _optimizer(self, named: Mapping[str, Tensor], anchor: Mapping[str, Tensor]) -> torch.optim.Optimizer:
        rate = self.settings.learning_rate
        group = {"params": list(named.items()), "anchor": [anchor[name] for name in named]}
        for name, options in FTP_OPTIONS.items():
            if name in self._parts:
                return AdamFTP([group], rate, **options)
        if "spd" in self._parts:
            return AdamSPD([group], rate)
        return torch.optim.AdamW(named.values(), rate, weight_decay=0.0)

    def _tpgm(self, named: Mapping[str, Tensor], anchor: Mapping[str, Tensor], state: State) -> TPGM | None:
        if "tpgm" not in self._parts:
            return None
        tpgm = TPGM(named.items(), anchor)
        with torch.no_grad():
            for name, radius in tpgm.radii.items():
                radius.copy_(state.get(f"radius/{name}", radius))
        restore(tpgm.optimizer, tpgm.radii, state, "radius_optimizer")
        return tpgm

    def _gradients(
        self,
        model: nn.Module,
        named: Mapping[str, Tensor],
        anchor: Mapping[str, Tensor],
        state: State,
        remembered: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch drawn by the generator, and its gradients by name."""
        windows, labels = self._recent(state, generator, self.settings.batch)
        if self._parts & {"er", "iwms"}:
            half = self.settings.batch // 2
            old, old_labels = self._memory(state, remembered, generator, half)
            windows, labels = torch.cat([windows[half:], old]), torch.cat([labels[half:], old_labels])
        logits = model(windows)
        loss = nn.functional.cross_entropy(logits, labels)
        if "l2sp" in self._parts:
            loss = loss + l2_sp(named, anchor, self.settings.strength["l2sp"])
        if "ewc" in self._parts:
            information = {name: state[f"fisher/{name}"] for name in named}
            loss = loss + ewc(named, anchor, information, self.settings.strength["ewc"])
        if "lwf" in self._parts:
            with torch.no_grad():
                before = torch.func.functional_call(model, dict(anchor), (windows,))
            loss = loss + self.settings.strength["lwf"] * lwf(logits, before)
        gradients = gradients_of(loss, named)
        if "agem" in self._parts:
            old, old_labels = self._memory(state, remembered, generator, self.settings.batch)
            gradients = agem(gradients, gradients_of(nn.functional.cross_entropy(model(old), old_labels), named))
        return loss.detach(), gradients

    def _held_out_loss(
        self, model: nn.Module, state: State, generator: torch.Generator
    ) -> Callable[[Mapping[str, Tensor]], Tensor]:
        windows, labels = self._recent(state, generator, self.settings.batch, held_out=True)

        def loss(tensors: Mapping[str, Tensor]) -> Tensor:
            return nn.functional.cross_entropy(torch.func.functional_call(model, dict(tensors), (windows,)), labels)

        return loss

    def _recent(
        self, state: State, generator: torch.Generator, count: int, held_out: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Draw from the last labels; ``tpgm`` keeps the newest quarter for its radii, which learn it later."""
        there = len(state["recent/labels"])
        kept = there // 4 if "tpgm" in self._parts else 0
        first, last = (there - kept, there) if held_out and kept else (0, there - kept)
        rows = torch.randint(first, last, (count,), generator=generator)
        return state["recent/windows"][rows], state["recent/labels"][rows]

    def _remembered(self, model: nn.Module, state: State) -> Tensor:
        """Return the places in memory that batches are drawn from: all that are filled, or those like the newest."""
        if not self._remembers:
            return torch.zeros(0, dtype=torch.int64)
        filled = torch.nonzero(state["memory/labels"] >= 0).flatten()
        if "iwms" not in self._parts or len(state["unlabelled/windows"]) == 0:
            return filled
        labels = state["memory/labels"][filled] % self._classes
        return filled[alike(model, state["memory/windows"][filled], labels, state["unlabelled/windows"])]

    def _memory(self, state: State, places: Tensor, generator: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
        rows = places[torch.randint(0, len(places), (count,), generator=generator)]
        return state["memory/windows"][rows], state["memory/labels"][rows] % self._classes
