"""RoTTA: statistics and affine parameters from a balanced memory, taught by a slow teacher, every 64 windows.

After "Robust Test-Time Adaptation in Dynamic Scenarios", Yuan et al., CVPR 2023. Made for streams in which neighbours
share a class: no statistic ever comes from a batch of neighbours, so an answer depends on the batch size only through
when updates fall. Every window enters the memory (`cstu`); after each 64, with a = age / 64 of each window in memory:

    (1) robust BatchNorm: stats <- 0.95 stats + 0.05 stats of the memory; the pass normalises with the new ones
    (2) L = mean_i w_i CE(teacher(x_i), student(augmented x_i)),  w = exp(-a) / (1 + exp(-a))
    (3) gamma, beta of the student <- Adam(., dL), 1e-3
    (4) gamma, beta of the teacher <- (1 - nu) teacher + nu student,  nu = 0.001

Student and teacher keep statistics of their own: the student's see augmented windows, the teacher's raw ones. The
answer is the teacher's, from stored statistics. The public robust BatchNorm takes (B, C) or images; here (B, C, L) as
well. RECONSTRUCTED: the strong augmentation (`sensor_augmentations`).
"""

import torch
from torch import Tensor

from acclimate.adaptation.data.sensor_augmentations import augmented
from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.method import SourceContext, State, Step, require_adapted
from acclimate.adaptation.methods.cstu import Cstu
from acclimate.adaptation.model.losses import entropies
from acclimate.adaptation.model.network import Layer, Network, Normalise, batch_statistics, normalise_with
from acclimate.adaptation.model.source_units import SourceUnits
from acclimate.adaptation.state.optimizers import adam_start, adam_step, all_finite, gradients_of
from acclimate.adaptation.state.random_state import random_start, resumed

__all__ = ["Rotta"]


class Rotta:
    """Configure RoTTA.

    Args:
        context: The source; its windows give the shape of the memory and the units of the augmentation.
        learning_rate: The rate of Adam. Raising it adapts faster.
        memory: Places, and windows between updates, at least 1. Raising it makes statistics steadier and updates rarer.
        statistics_rate: Share of the memory's statistics at each update, 0 to 1. Raising it adapts faster.
        teacher_rate: nu, 0 to 1. Raising it lets the teacher follow the student faster.

    Raises:
        ConfigError: The network has no BatchNorm layer, or a setting is out of range.
    """

    stateless = False

    def __init__(
        self,
        context: SourceContext,
        learning_rate: float = 1e-3,
        memory: int = 64,
        statistics_rate: float = 0.05,
        teacher_rate: float = 0.001,
    ) -> None:
        if memory < 1:
            raise ConfigError(f"memory: expected at least 1 place, got {memory}")
        if not 0 <= statistics_rate <= 1 or not 0 <= teacher_rate <= 1:
            raise ConfigError(f"statistics_rate, teacher_rate: expected 0 to 1, got {statistics_rate}, {teacher_rate}")
        self._network = Network(context.model)
        self._affine = require_adapted(self._network.affine, "gamma or beta")
        self.adapts = (*self._affine, *self._network.statistics)
        self._units, self._seed, self._window = SourceUnits(context), context.seed, context.windows[0]
        self._learning_rate, self._memory = learning_rate, memory
        self._statistics_rate, self._teacher_rate = statistics_rate, teacher_rate

    def reset(self) -> State:
        """Return student and teacher as the source, an empty memory, and an optimizer that has seen nothing."""
        student = {name: self._network.tensors[name] for name in self.adapts}
        return {
            **student,
            **{f"teacher/{name}": value.clone() for name, value in student.items()},
            **adam_start({name: student[name] for name in self._affine}),
            **Cstu.empty(self._memory, self._window).state(),
            "windows_seen": torch.zeros((), dtype=torch.int64),
            "generator": random_start(self._seed),
        }

    def adapt_batch(self, state: State, windows: Tensor) -> tuple[State, Step]:
        """Answer with the teacher, remember the windows, and update at each 64th of the stream."""
        teacher = {name: state[f"teacher/{name}"] for name in self.adapts}
        with torch.no_grad():
            logits = self._network.forward(windows, teacher).logits
            unsure = entropies(logits)
        classes = logits.argmax(dim=1)
        new, updates, selected, first = dict(state), 0, 0, 0
        while first < len(windows):
            due = self._memory - int(new["windows_seen"]) % self._memory
            part = slice(first, min(first + due, len(windows)))
            memory = Cstu.of(new).with_windows(windows[part], classes[part], unsure[part], self._network.classes)
            taken = part.stop - part.start
            new |= {**memory.state(), "windows_seen": new["windows_seen"] + taken}
            first = part.stop
            if taken == due:
                used, change = self._update(new, memory)
                new |= change
                updates, selected = updates + (used > 0), selected + used
        return new, Step(torch.softmax(logits, dim=1), updates=updates, selected=selected)

    def _update(self, state: State, memory: Cstu) -> tuple[int, dict[str, Tensor]]:
        """Return how many windows taught, and what changed; nothing where the loss is not finite."""
        generator = resumed(state["generator"])
        held = memory.classes >= 0
        windows, age = memory.windows[held], memory.ages[held] / self._memory
        teacher = {name: state[f"teacher/{name}"] for name in self.adapts}
        student = {name: state[name].detach() for name in self.adapts}
        with torch.no_grad():
            views = self._units.to_raw(augmented(self._units.to_units(windows), generator))
            rule, teacher_statistics = self._robust()
            taught = torch.softmax(self._network.forward(windows, teacher, rule).logits, dim=1)
        affine = {name: student[name].requires_grad_() for name in self._affine}
        with torch.enable_grad():
            rule, student_statistics = self._robust()
            logits = self._network.forward(views, student, rule).logits
            cross = -(taught * torch.log_softmax(logits, dim=1)).sum(dim=1)
            loss = (torch.sigmoid(-age) * cross).mean()  # (2): exp(-a) / (1 + exp(-a))
            gradients = gradients_of(loss, affine)
        change: dict[str, Tensor] = {"generator": generator.get_state()}
        if not all_finite((loss, *gradients.values())):
            return 0, change
        change |= adam_step(affine, gradients, state, self._learning_rate)  # (3)
        for name in self._affine:
            change[f"teacher/{name}"] = torch.lerp(teacher[name], change[name], self._teacher_rate)  # (4)
        change |= student_statistics
        change |= {f"teacher/{name}": value for name, value in teacher_statistics.items()}
        return len(windows), change

    def _robust(self) -> tuple[Normalise, dict[str, Tensor]]:
        """Return a rule that blends and uses statistics, and the mapping that it fills with them."""
        found: dict[str, Tensor] = {}

        def rule(layer: Layer, x: Tensor) -> Tensor:
            mean, var = batch_statistics(x) or (layer.mean, layer.var)
            mean = torch.lerp(layer.mean, mean, self._statistics_rate)  # (1)
            var = torch.lerp(layer.var, var, self._statistics_rate)
            names = self._network.statistics[2 * layer.index : 2 * layer.index + 2]
            found.update(zip(names, (mean.detach(), var.detach()), strict=True))
            return normalise_with(layer, x, mean, var)

        return rule, found
