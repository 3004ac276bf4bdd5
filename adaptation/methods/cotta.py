"""CoTTA: a student learns from a slow teacher of itself, and forgets back to the source at random.

After "Continual Test-Time Domain Adaptation", Wang et al., CVPR 2022. All parameters learn; student, teacher and the
frozen source (the anchor) use the statistics of the batch. The answer is the teacher's, from before the step.

    (1) y = teacher(x), or the mean of the teacher's logits over augmented views of x
        where the anchor's mean confidence on the batch is below p_th
    (2) L = mean_i -sum_k softmax(y)_ik ln softmax(student(x))_ik;  student <- Adam(student, dL)
    (3) teacher <- 0.999 teacher + 0.001 student
    (4) each element of the student goes back to the source with probability 0.01

Defaults are the configurations for small images: 32 views, Adam 1e-3. p_th is the 5 % quantile of the source's
confidence on its own windows, in batches of 64 with batch statistics, less 0.05. Adam's moments stay through (4), as
published. RECONSTRUCTED: the augmentations (`sensor_augmentations`). All views go through the network in one pass, each
with batch statistics of its own.

As published, student and teacher see the same windows where the anchor is sure. At the start they are equal, (2) has no
slope but rounding, and Adam makes steps of up to its learning rate out of that; (3) and (4) keep them small.
"""

import torch
from torch import Tensor

from acclimate.adaptation.data.sensor_augmentations import augmented
from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.method import SourceContext, State, Step, require_adapted
from acclimate.adaptation.model.groups import by_group
from acclimate.adaptation.model.network import Network, by_batch
from acclimate.adaptation.model.source_units import SourceUnits
from acclimate.adaptation.state.optimizers import adam_start, adam_step, all_finite, gradients_of
from acclimate.adaptation.state.random_state import random_start, resumed

__all__ = ["Cotta"]

_CALIBRATION_BATCH = 64


class Cotta:
    """Configure CoTTA.

    Args:
        context: The source; its windows give p_th.
        learning_rate: The rate of Adam. Raising it adapts, and collapses, faster.
        teacher_decay: Share of the teacher kept at each step, 0 to 1. Raising it makes the teacher slower.
        restore: Probability of (4), 0 to 1. Raising it forgets faster; 0.01 halves a deviation in 69 steps.
        views: Augmented views for an unsure batch, at least 1. Raising it steadies the teacher and costs passes.
        confidence: p_th, 0 to 1; None for the rule above. Raising it augments more often.

    Raises:
        ConfigError: The network has no BatchNorm layer, or a setting is out of range.
    """

    stateless = False

    def __init__(
        self,
        context: SourceContext,
        learning_rate: float = 1e-3,
        teacher_decay: float = 0.999,
        restore: float = 0.01,
        views: int = 32,
        confidence: float | None = None,
    ) -> None:
        if not 0 <= restore <= 1 or not 0 <= teacher_decay <= 1:
            raise ConfigError(f"restore, teacher_decay: expected 0 to 1, got {restore}, {teacher_decay}")
        if views < 1:
            raise ConfigError(f"views: expected at least 1, got {views}")
        self._network = Network(context.model)
        affine = set(self._network.affine)
        named = {name for name, _ in context.model.named_parameters()} | affine  # affine exists in the copy at least
        self.adapts = require_adapted(tuple(name for name in self._network.tensors if name in named), "parameter")
        self._units, self._seed = SourceUnits(context), context.seed
        self._learning_rate, self._teacher_decay = learning_rate, teacher_decay
        self._restore, self._views = restore, views
        self._confidence = self._usual_confidence(context) if confidence is None else confidence

    @torch.no_grad()
    def _usual_confidence(self, context: SourceContext) -> float:
        order = torch.randperm(len(context.windows), generator=torch.Generator().manual_seed(context.seed))
        starts = range(0, len(order), _CALIBRATION_BATCH)
        confidences = [self._anchor(context.windows[order[at : at + _CALIBRATION_BATCH]]) for at in starts]
        return float(torch.cat(confidences).quantile(0.05)) - 0.05

    def _anchor(self, windows: Tensor) -> Tensor:
        """Return the source's confidence in its answer to each window (n,)."""
        return torch.softmax(self._network.forward(windows, normalise=by_batch).logits, dim=1).amax(dim=1)

    def reset(self) -> State:
        """Return student and teacher as the source, an optimizer that has seen nothing, and the generator's start."""
        student = {name: self._network.tensors[name] for name in self.adapts}
        teacher = {f"teacher/{name}": value.clone() for name, value in student.items()}
        return {**student, **teacher, **adam_start(student), "generator": random_start(self._seed)}

    def _teacher_logits(self, teacher: State, windows: Tensor, generator: torch.Generator) -> Tensor:
        if float(self._anchor(windows).mean()) >= self._confidence:
            return self._network.forward(windows, teacher, by_batch).logits
        units = self._units.to_units(windows)
        views = self._units.to_raw(augmented(units.repeat(self._views, *(1,) * (units.dim() - 1)), generator))
        logits = self._network.forward(views, teacher, by_group(self._views)).logits
        return logits.reshape(self._views, len(windows), -1).mean(dim=0)  # (1)

    def adapt_batch(self, state: State, windows: Tensor) -> tuple[State, Step]:
        """Answer with the teacher, teach the student once, move the teacher, restore; not finite changes nothing."""
        generator = resumed(state["generator"])
        teacher = {name: state[f"teacher/{name}"] for name in self.adapts}
        with torch.no_grad():
            answer = torch.softmax(self._teacher_logits(teacher, windows, generator), dim=1)
        student = {name: state[name].detach().requires_grad_() for name in self.adapts}
        with torch.enable_grad():
            logits = self._network.forward(windows, student, by_batch).logits
            loss = -(answer * torch.log_softmax(logits, dim=1)).sum(dim=1).mean()  # (2)
            gradients = gradients_of(loss, student)
        if not all_finite((loss, *gradients.values())):
            return {**state, "generator": generator.get_state()}, Step(answer)
        new = adam_step(student, gradients, state, self._learning_rate)
        for name in self.adapts:
            new[f"teacher/{name}"] = torch.lerp(new[name], teacher[name], self._teacher_decay)  # (3)
            back = torch.rand(new[name].shape, generator=generator) < self._restore
            new[name] = torch.where(back, self._network.tensors[name], new[name])  # (4)
        new["generator"] = generator.get_state()
        return new, Step(answer, updates=1, selected=len(windows))
