"""Learning from labels as they come: one pure step, (state, arrived labels) -> (state, report).

    learner = Learner(model, labelled source windows, classes, settings, seed)
    state = learner.start()
    state, report = learner.learn(state, arrived)

A way of learning is a sum of parts, such as ``ftp+er``; each part is one idea, in a file of its own:

    naive             AdamW on the labels that came last, and nothing else
    ftp, spd, tpgm    the step ends near the anchor (`acclimate.adaptation.projection`); ``ftp-warm`` and
                      ``ftp-relative`` are FTP with a first step taken whole, and with that and radii that move by a
                      tenth of the deviation
    l2sp, ewc         leaving it has a price
    lwf               answers should stay the source's: on its own windows with ``er`` or ``iwms``, on all without
    er, agem          old windows: half of every batch, or a veto
    iwms              as er, but of what is remembered that which is like the newest windows without labels
    adapters          gamma, beta and head of each device are its own (`acclimate.adaptation.continual.adapters`)

    (1) labels are gathered until `least` are there, or the caller asks for an update
    (2) `steps` steps: a batch of the last `recent` labels of the devices that labels came from; with ``er`` and
        ``iwms`` at most half of it, and no more than there are; the rest from the source and from memory, equally
    (3) the running statistics of BatchNorm stay the anchor's
    (4) every other window of the source is taken for one of the device that labels came from last

(2), (3), (4) because labels come a few at a time and one class after another: statistics of such a batch are those of
the class, and a device's adapters, or a batch of eight labels over and over, would soon know nothing else. Weights,
gamma and beta move. Memory (`acclimate.adaptation.state.reservoir`) is even over pairs of class and device.

State is a flat mapping of named tensors, as in `acclimate.adaptation.method`: it saves with safetensors and goes on bit
for bit. Everything random comes from a generator in it.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from acclimate.adaptation.continual.adapters import adapted, adapter_names, personal_logits, with_devices
from acclimate.adaptation.continual.labelled import Labelled, joined
from acclimate.adaptation.continual.penalties import agem, ewc, fisher, lwf
from acclimate.adaptation.continual.settings import FTP_OPTIONS, LearnerSettings, parse_method
from acclimate.adaptation.continual.similarity import alike
from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.method import State
from acclimate.adaptation.model.network import Network
from acclimate.adaptation.projection.ftp import AdamFTP
from acclimate.adaptation.projection.l2sp import l2_sp
from acclimate.adaptation.projection.spd import AdamSPD
from acclimate.adaptation.projection.tpgm import TPGM
from acclimate.adaptation.state.optimizer_state import kept, restore
from acclimate.adaptation.state.optimizers import all_finite, gradients_of
from acclimate.adaptation.state.random_state import random_start, resumed
from acclimate.adaptation.state.reservoir import offer, start_reservoir

__all__ = ["Arrived", "Learner", "Report"]

_ABOUT_ANCHOR = ("optimizer", "radius", "radius_optimizer")


@dataclass(frozen=True)
class Report:
    """The work of one call of `Learner.learn`.

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
class Arrived(Labelled):
    """Labels that have come.

    Attributes:
        unlabelled: (m, C, L) windows that have come without a label, if any.
    """

    unlabelled: Tensor | None = None


class Learner:
    """Configure a way of learning from a source.

    Args:
        model: The source, in evaluation mode; it is copied.
        source: Labelled windows of the source, which ``er`` and its relatives draw from and EWC looks at; devices are
            ignored. They are the caller's, and no part of any state.
        classes: K.
        settings: The way of learning.
        seed: The seed for all random draws.

    Raises:
        ConfigError: The model is in training mode, or has no parameter that asks for a gradient.
        NotAdaptable: ``adapters`` are asked for, and the network has no BatchNorm layer or no linear head.
    """

    def __init__(self, model: nn.Module, source: Labelled, classes: int, settings: LearnerSettings, seed: int) -> None:
        if model.training:
            raise ConfigError("the source is in training mode; call eval() on the trained network first")
        self._model = copy.deepcopy(model)
        source = Labelled(source.windows, source.labels, torch.zeros_like(source.labels))
        self._source, self._classes, self.settings, self._seed = source, classes, settings, seed
        self._parts = parse_method(settings.method)
        self._network = Network(model) if "adapters" in self._parts else None
        self._adapted = adapter_names(self._network) if self._network else ()
        self._names = tuple(name for name, value in self._model.named_parameters() if value.requires_grad)
        if not self._names:
            raise ConfigError("the network has no parameter that asks for a gradient: there is nothing to learn")

    def start(self) -> State:
        """Return the state of a source that has learned nothing yet."""
        values = {name: value.detach().clone() for name, value in self._model.named_parameters() if name in self._names}
        shape = self._source.windows.shape[1:]
        none = torch.zeros(0, dtype=torch.int64)
        state: dict[str, Tensor] = {
            **{f"model/{name}": value for name, value in values.items()},
            **{f"anchor/{name}": value for name, value in values.items()},
            **{f"adapters/{name}": torch.zeros(1, *values[name].shape) for name in self._adapted},
            "recent/windows": torch.zeros(0, *shape),
            "recent/labels": none,
            "recent/devices": none,
            "unlabelled/windows": torch.zeros(0, *shape),
            "waiting": torch.zeros((), dtype=torch.int64),
            "generator": random_start(self._seed),
        }
        if "ewc" in self._parts:
            found = fisher(self._model, self._source.windows, self._source.labels)
            state.update({f"fisher/{name}": found[name] for name in self._names})
        if self._remembers:
            state.update(start_reservoir(self.settings.memory, shape, self._classes, self._seed))
        return state

    def learn(self, state: State, arrived: Arrived, finish: bool = False) -> tuple[State, Report]:
        """Take labels in, and learn where enough are there: (1), (2).

        Args:
            state: The state from `start` or the last call.
            arrived: The windows and labels that have come since; may be empty.
            finish: Learn from what waits, however little it is.
        """
        new = dict(state)
        recent = joined(_recent(state), arrived).take(slice(-self.settings.recent, None))
        new |= {f"recent/{kind}": getattr(recent, kind) for kind in ("windows", "labels", "devices")}
        if "iwms" in self._parts and arrived.unlabelled is not None:
            seen = torch.cat([state["unlabelled/windows"], arrived.unlabelled])
            new["unlabelled/windows"] = seen[-self.settings.batch // 2 :]
        if self._remembers and len(arrived.labels):
            memory = {name: value for name, value in state.items() if name.startswith("memory/")}
            new |= offer(memory, arrived.windows, arrived.devices * self._classes + arrived.labels)
        waiting = int(state["waiting"]) + len(arrived.labels)
        ready = waiting >= (1 if finish else self.settings.least)
        new["waiting"] = torch.tensor(0 if ready else waiting)
        return self._update(new, waiting) if ready else (new, Report(0, None, 0, waiting))

    def model(self, state: State, device: int = 0) -> nn.Module:
        """Return the network that answers a device, in evaluation mode; without ``adapters`` all have the same."""
        shared = {name: state[f"model/{name}"] for name in self._names}
        values = adapted(shared, {name: state[f"adapters/{name}"] for name in self._adapted}, device)
        model = copy.deepcopy(self._model)
        with torch.no_grad():
            for name, value in model.named_parameters():
                if name in values:
                    value.copy_(values[name])
        return model

    def anchored_here(self, state: State) -> State:
        """Return the state with its model as the new anchor, as after a validation that it passed.

        The optimizer drops what it has learned about the old anchor.
        """
        kept = {name: value for name, value in state.items() if name.split("/")[0] not in _ABOUT_ANCHOR}
        return {**kept, **{f"anchor/{name}": state[f"model/{name}"] for name in self._names}}

    @property
    def _remembers(self) -> bool:
        return bool(self._parts & {"er", "iwms", "agem"})

    def _update(self, state: dict[str, Tensor], waiting: int) -> tuple[State, Report]:
        new = {**state, **self._with_room(state)}
        named = {name: new[f"model/{name}"].clone().requires_grad_() for name in self._names}
        own = {name: new[f"adapters/{name}"].clone().requires_grad_() for name in self._adapted}
        learned = {**named, **_named_adapters(own)}
        anchor = {name: state[f"anchor/{name}"] for name in named}
        optimizer = self._optimizer(learned, [anchor.get(name) for name in learned])
        restore(optimizer, learned, new, "optimizer")
        tpgm = self._tpgm(named, anchor, state)
        fresh, held_out = self._fresh(state, waiting)
        remembered = self._remembered(state)
        generator = resumed(state["generator"])
        losses: list[float] = []
        for _ in range(self.settings.steps):
            batch = self._batch(fresh, remembered, generator)
            loss, gradients = self._gradients(named, own, anchor, state, batch)
            if "agem" in self._parts:
                old = self._old(remembered, self.settings.batch, generator)
                gradients = agem(gradients, gradients_of(self._loss(named, own, old), learned))
            if not all_finite((loss, *gradients.values())):
                continue
            for name, value in learned.items():
                value.grad = gradients[name]
            optimizer.step()
            losses.append(float(loss))
            if tpgm is not None:
                held = held_out.draw(self.settings.batch, generator)
                tpgm.step(partial(self._loss, own=own, batch=held))
        new |= {"generator": generator.get_state(), **kept(optimizer, learned, "optimizer")}
        new |= {f"model/{name}": value.detach() for name, value in named.items()}
        new |= _named_adapters({name: value.detach() for name, value in own.items()})
        if tpgm is not None:
            new |= {f"radius/{name}": radius.detach().clone() for name, radius in tpgm.radii.items()}
            new |= kept(tpgm.optimizer, tpgm.radii, "radius_optimizer")
        mean = sum(losses) / len(losses) if losses else None
        return new, Report(len(losses), mean, self.settings.steps - len(losses), 0)

    def _optimizer(self, learned: Mapping[str, Tensor], anchor: list[Tensor | None]) -> torch.optim.Optimizer:
        rate = self.settings.learning_rate
        group = {"params": list(learned.items()), "anchor": anchor}
        for name, options in FTP_OPTIONS.items():
            if name in self._parts:
                return AdamFTP([group], rate, **options)
        if "spd" in self._parts:
            return AdamSPD([group], rate)
        return torch.optim.AdamW(learned.values(), rate, weight_decay=0.0)

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
        named: Mapping[str, Tensor],
        own: Mapping[str, Tensor],
        anchor: Mapping[str, Tensor],
        state: State,
        batch: Labelled,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch with all prices, and its gradients by name."""
        logits = self._logits(named, own, batch)
        loss = nn.functional.cross_entropy(logits, batch.labels)
        if "l2sp" in self._parts:
            loss = loss + l2_sp(named, anchor, self.settings.strength["l2sp"])
        if "ewc" in self._parts:
            information = {name: state[f"fisher/{name}"] for name in named}
            loss = loss + ewc(named, anchor, information, self.settings.strength["ewc"])
        if "lwf" in self._parts:
            rows = batch.devices == 0  # the source, where the batch has it
            rows = rows if rows.any() else torch.ones_like(rows)
            with torch.no_grad():
                before = torch.func.functional_call(self._model, dict(anchor), (batch.windows[rows],))
            share = float(rows.float().mean())
            loss = loss + self.settings.strength["lwf"] * share * lwf(logits[rows], before)
        return loss.detach(), gradients_of(loss, {**named, **_named_adapters(own)})

    def _loss(self, named: Mapping[str, Tensor], own: Mapping[str, Tensor], batch: Labelled) -> Tensor:
        return nn.functional.cross_entropy(self._logits(named, own, batch), batch.labels)

    def _logits(self, named: Mapping[str, Tensor], own: Mapping[str, Tensor], batch: Labelled) -> Tensor:
        if self._network is not None:
            return personal_logits(self._network, named, own, batch.windows, batch.devices)
        logits: Tensor = torch.func.functional_call(self._model, dict(named), (batch.windows,))
        return logits

    def _fresh(self, state: State, waiting: int) -> tuple[Labelled, Labelled]:
        """Return the last labels of the devices that labels came from, and what ``tpgm`` learns its radii on.

        That is their newest quarter, which becomes part of the first later; all of them where there are too few.
        """
        recent = _recent(state)
        fresh = recent.take(torch.isin(recent.devices, recent.devices[-waiting:]))
        quarter = len(fresh) // 4 if "tpgm" in self._parts else 0
        learned = fresh.take(slice(0, len(fresh) - quarter))
        return learned, fresh.take(slice(len(fresh) - quarter, None)) if quarter else learned

    def _remembered(self, state: State) -> Labelled | None:
        """Return the part of memory that batches are drawn from: all that is filled, or what is like the newest."""
        if not self._remembers:
            return None
        filled = state["memory/labels"] >= 0
        cells = state["memory/labels"][filled]
        held = Labelled(state["memory/windows"][filled], cells % self._classes, cells // self._classes)
        new = state["unlabelled/windows"]
        if "iwms" not in self._parts or len(new) == 0:
            return held
        return held.take(alike(self.model(state), held.windows, held.labels, new))

    def _batch(self, fresh: Labelled, remembered: Labelled | None, generator: torch.Generator) -> Labelled:
        """Draw a batch: (2), (4)."""
        size = self.settings.batch
        if not self._parts & {"er", "iwms"}:
            return fresh.draw(size, generator)
        new = fresh.draw(min(size - size // 2, len(fresh)), generator)
        old = self._old(remembered, size - len(new), generator)
        lent = torch.nonzero(old.devices == 0).flatten()[::2]
        devices = old.devices.index_fill(0, lent, int(fresh.devices[-1]))
        return joined(new, Labelled(old.windows, old.labels, devices))

    def _old(self, remembered: Labelled | None, count: int, generator: torch.Generator) -> Labelled:
        """Draw what has been: half of the source, half of memory."""
        assert remembered is not None  # parts that look back remember
        half = count // 2
        return joined(self._source.draw(count - half, generator), remembered.draw(half, generator))

    def _with_room(self, state: State) -> dict[str, Tensor]:
        """Return the adapters and what the optimizer knows of them, with a row for every device that has come."""
        known = [state["recent/devices"], state.get("memory/labels", state["recent/devices"]) // self._classes]
        devices = int(torch.cat(known).max()) + 1
        kinds = ("adapters/", "optimizer/adapters/")
        return with_devices({name: v for name, v in state.items() if name.startswith(kinds) and v.dim()}, devices)


def _named_adapters(own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"adapters/{name}": value for name, value in own.items()}


def _recent(state: State) -> Labelled:
    return Labelled(*(state[f"recent/{kind}"] for kind in ("windows", "labels", "devices")))
