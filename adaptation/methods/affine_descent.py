"""Steps of gamma and beta down a loss without labels, by one of three rules: MGG, SGD or Adam.

After MGTTA, Deng et al., AAAI 2025 (see `acclimate.adaptation.generators.mgg`), with two plain optimizers on the same
loss beside
it: what a learned rule adds can only be told against them. With g of `acclimate.adaptation.generators.affine_gradient`,
    (4):

    (1) p <- p + rule(g, what the rule remembers),  p = all gamma and beta of the device
    (2) a batch is answered with p from before its step

A step needs the statistics of several windows, so smaller batches are gathered until `LEAST_WINDOWS` are there; larger
ones are one step each, as published. BatchNorm keeps the source's statistics.

Guards, RECONSTRUCTED: windows that no working sensor sends (`acclimate.adaptation.guards.input_sanity`) get the
source's answer and leave no trace; a batch beyond the range that MGG met in meta-training is answered by the source and
moves nothing, and so are the windows after it until a batch lies inside again; a step that is not finite is not taken.
"""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.generators.affine_gradient import (
    Seen,
    affine_gradient,
    batch_distance,
    discrepancy_weight,
    join,
    logits_with,
    source_features,
    split,
)
from acclimate.adaptation.generators.generator import Generator
from acclimate.adaptation.generators.mgg import moments_start, moments_step
from acclimate.adaptation.generators.valid_range import LEAST_WINDOWS
from acclimate.adaptation.guards.input_sanity import InputSanity
from acclimate.adaptation.method import SourceContext, State, Step, require_adapted
from acclimate.adaptation.model.network import Network
from acclimate.adaptation.state.optimizers import adam_start, adam_step, all_finite, sgd_start, sgd_step

__all__ = ["AdamRule", "AffineDescent", "MggRule", "Rule", "SgdRule"]


class Rule(Protocol):
    """A rule that turns a gradient into a step."""

    def start(self, coordinates: Tensor) -> State:
        """Return what it remembers before any gradient; coordinates (P,) for the shape."""
        ...

    def step(self, memory: State, gradient: Tensor) -> tuple[Tensor, State]:
        """Return the change of the coordinates (P,), and what it remembers now."""
        ...


class SgdRule:
    """SGD with momentum 0.9; the rate is TENT's."""

    def __init__(self, learning_rate: float = 1e-3) -> None:
        self._rate = learning_rate

    def start(self, coordinates: Tensor) -> State:
        """Return an empty momentum buffer."""
        return sgd_start({"p": coordinates})

    def step(self, memory: State, gradient: Tensor) -> tuple[Tensor, State]:
        """Return the step."""
        new = sgd_step({"p": torch.zeros_like(gradient)}, {"p": gradient}, memory, self._rate)
        return new.pop("p"), new


class AdamRule:
    """Adam; the rate is TENT's."""

    def __init__(self, learning_rate: float = 1e-3) -> None:
        self._rate = learning_rate

    def start(self, coordinates: Tensor) -> State:
        """Return empty moments."""
        return adam_start({"p": coordinates})

    def step(self, memory: State, gradient: Tensor) -> tuple[Tensor, State]:
        """Return the step."""
        new = adam_step({"p": torch.zeros_like(gradient)}, {"p": gradient}, memory, self._rate)
        return new.pop("p"), new


class MggRule:
    """A meta-trained MGG.

    Args:
        generator: An MGG.

    Raises:
        ContractError: The generator is not an MGG.
    """

    def __init__(self, generator: Generator) -> None:
        self._mgg = generator.mgg()

    def start(self, coordinates: Tensor) -> State:
        """Return moments of 0 and the learned memory."""
        return {**moments_start(tuple(coordinates.shape)), **self._mgg.start(coordinates.numel())}

    def step(self, memory: State, gradient: Tensor) -> tuple[Tensor, State]:
        """Return the step."""
        moments, x = moments_step(memory, gradient)
        u, carried = self._mgg(x, {name: value for name, value in memory.items() if name not in moments})
        return -self._mgg.settings.alpha * u, {**moments, **carried}


class AffineDescent:
    """Configure steps of gamma and beta.

    Args:
        context: The source.
        rule: The rule that turns a gradient into a step.
        generator: The generator whose range holds; None for rules that were not trained.

    Raises:
        ConfigError: The source sample has a single window.
        NotAdaptable: The network has no BatchNorm layer.
    """

    stateless = False

    def __init__(self, context: SourceContext, rule: Rule, generator: Generator | None = None) -> None:
        if len(context.all_windows) < 2:
            raise ConfigError("source sample: expected at least 2 windows, to have a deviation, got 1")
        self._network, self._rule = Network(context.model), rule
        self._range = None if generator is None else generator.valid_range
        self._rung = "source" if generator is None else "mgg"
        self._source = source_features(self._network, context.all_windows)
        self._weight = discrepancy_weight(self._network.classes)
        self._sanity = InputSanity(context)
        self.adapts = require_adapted(self._network.affine, "gamma or beta")
        self._like = {name: self._network.tensors[name] for name in self.adapts}
        self._gathered = torch.zeros(LEAST_WINDOWS, *context.windows.shape[1:])

    def reset(self) -> State:
        """Return the source's gamma and beta, a rule that has seen nothing, and no windows gathered."""
        rule = {f"rule/{name}": value for name, value in self._rule.start(join(self._like)).items()}
        counts = {name: torch.zeros((), dtype=torch.int64) for name in ("gathered", "outside")}
        return {**self._like, **rule, **counts, "windows": self._gathered}

    @torch.no_grad()
    def adapt_batch(self, state: State, windows: Tensor) -> tuple[State, Step]:
        """Answer with what is in force, then step or gather: (1), (2)."""
        sane = self._sanity.check(windows).sane
        filled = self._sanity.fill(windows)
        answers = torch.softmax(self._network.forward(filled).logits, dim=1)
        rows = torch.nonzero(sane).flatten()
        if len(rows) == 0:
            return state, Step(answers, receipts=self._receipts("input refused", 0, len(windows)))
        batch, affine = filled[rows], {name: state[name] for name in self.adapts}
        if len(batch) >= LEAST_WINDOWS:
            seen, gradient = affine_gradient(self._network, batch, affine, self._source, self._weight)
            outside = self._is_outside(seen)
            new, updates = self._stepped(state, seen, gradient, outside)
            selected = updates * len(batch)
            if not outside:
                answers[rows] = torch.softmax(seen.logits, dim=1)
        else:
            outside = bool(state["outside"])
            if not outside:
                answers[rows] = torch.softmax(logits_with(self._network, batch, affine), dim=1)
            room = LEAST_WINDOWS - int(state["gathered"])
            new, updates = self._gather(state, batch[:room])
            if len(batch) > room:
                new, _ = self._gather(new, batch[room:])
            selected = updates * LEAST_WINDOWS
        used = 0 if outside else len(rows)
        verdict = "outside the range" if outside else "input refused"
        receipts = self._receipts(verdict, used, len(windows) - used)
        return new, Step(answers, updates=updates, selected=selected, receipts=receipts)

    def _gather(self, state: State, windows: Tensor) -> tuple[State, int]:
        """Take windows in, no more than are missing; with the last of these, step."""
        count = int(state["gathered"])
        gathered = state["windows"].clone()
        gathered[count : count + len(windows)] = windows
        if count + len(windows) < LEAST_WINDOWS:
            return {**state, "windows": gathered, "gathered": state["gathered"] + len(windows)}, 0
        affine = {name: state[name] for name in self.adapts}
        seen, gradient = affine_gradient(self._network, gathered, affine, self._source, self._weight)
        new, updates = self._stepped(state, seen, gradient, self._is_outside(seen))
        return {**new, "windows": self._gathered, "gathered": torch.zeros((), dtype=torch.int64)}, updates

    def _is_outside(self, seen: Seen) -> bool:
        if self._range is None:
            return False
        mean, variance = batch_distance(seen)
        return self._range.share(float(mean), float(variance)) > 1.0

    def _stepped(self, state: State, seen: Seen, gradient: Mapping[str, Tensor], outside: bool) -> tuple[State, int]:
        new = {**state, "outside": torch.tensor(int(outside))}
        if outside or not all_finite((seen.logits, *gradient.values())):
            return new, 0
        known = {name.removeprefix("rule/"): value for name, value in state.items() if name.startswith("rule/")}
        step, memory = self._rule.step(known, join(gradient))
        moved = {name: state[name] + part for name, part in split(step, self._like).items()}
        if not all_finite(moved.values()):
            return new, 0
        return {**new, **moved, **{f"rule/{name}": value for name, value in memory.items()}}, 1

    def _receipts(self, verdict: str, used: int, by_source: int) -> tuple[dict[str, str | float | None], ...]:
        """Return who answered how many windows; a rule without a generator has nothing to account for."""
        if self._range is None:
            return ()
        given: tuple[dict[str, str | float | None], ...] = (
            {"windows": used, "rung": self._rung, "verdict": "inside the range"},
            {"windows": by_source, "rung": "source", "verdict": verdict},
        )
        return tuple(receipt for receipt in given if receipt["windows"])
