"""FOA: search the input's gain and offset without gradients, and shift the features back to the source's mean.

After "Test-Time Model Adaptation with Only Forward Passes", Niu et al., ICML 2024. The paper searches prompts of a
vision transformer; a sensor network has none, so the search vector is a log gain and an offset per input channel, in
source standard deviations. This port, its sigma and limits are RECONSTRUCTED:

    (1) candidates: 4 + floor(3 ln d) from CMA-ES (`cma_es`), d = 2 C, and the best one of the batch before
    (2) fitness = sum_i H_i + 0.4 r n / 64 sum over BatchNorm layers of ||m - m_s||^2 + ||s - s_s||^2
        m, s: mean and deviation, over the batch and time, of what enters the layer, as the layer normalises it
        r = (9216 / channels of all layers) (ln K / ln 1000)
    (3) features z + (mean_s - e) before the head, for every candidate;  the answer is that of the best candidate
    (4) e <- 0.9 e + 0.1 mean(z of the best);  e starts at mean_s

The published 0.4 balances 12 layers of 768 channels against the entropies of 1000 classes; r keeps that balance.
Without it the sums of a few channels weigh nothing, and the search settles where every window is surely the same class.

BatchNorm keeps the source's statistics: those of the batch would undo any gain and offset. The whole population goes
through the network in one pass. Suits quantised models and drifting calibration; at batch 1, (3) follows the last ten
windows, so that a long run of one class is taken for a shift.
"""

import math

import torch
from torch import Tensor

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.method import SourceContext, State, Step
from acclimate.adaptation.methods.cma_es import cma_ask, cma_population, cma_start, cma_tell
from acclimate.adaptation.model.groups import group_statistics
from acclimate.adaptation.model.losses import entropies
from acclimate.adaptation.model.network import Layer, Network, Pass, normalise_with
from acclimate.adaptation.model.source_units import SourceUnits
from acclimate.adaptation.state.random_state import random_start, resumed

__all__ = ["Foa"]

_PAPER_CHANNELS, _PAPER_CLASSES = 12 * 768, 1000
_LIMIT = 3.0  # log gain within 1/20 to 20, offset within 3 source deviations: beyond, a sensor is broken


class Foa:
    """Configure FOA.

    Args:
        context: The source; its windows give the statistics of layers and features.
        sigma: Standard deviation of the first candidates, log gain and source deviations. Raising it searches wider.
        discrepancy_weight: The weight of statistics in (2), before r, against entropies. Raising it trusts sure answers
            less.
        shift: Strength of (3); 0 leaves features alone.
        memory: Share of e kept at each batch, 0 to 1. Raising it makes the shift slower.
        population: Candidates besides the former best, at least 4; None for (1). Raising it finds better ones, slower.

    Raises:
        ConfigError: The network has no BatchNorm layer, or a setting is out of range.
    """

    adapts: tuple[str, ...] = ()  # the input, no tensor of the network
    stateless = False

    def __init__(
        self,
        context: SourceContext,
        sigma: float = 0.2,
        discrepancy_weight: float = 0.4,
        shift: float = 1.0,
        memory: float = 0.9,
        population: int | None = None,
    ) -> None:
        if population is not None and population < 4:
            raise ConfigError(f"population: expected at least 4 candidates, got {population}")
        if not sigma > 0 or not 0 <= memory <= 1:
            raise ConfigError(f"sigma, memory: expected above 0, and 0 to 1, got {sigma}, {memory}")
        self._network = Network(context.model)
        self._units, self._seed, self._sigma = SourceUnits(context), context.seed, sigma
        self._shift, self._memory = shift, memory
        self._dimensions = 2 * context.windows.shape[1]
        self._population = cma_population(self._dimensions) if population is None else population
        with torch.no_grad():
            seen, passed = self._observe(context.windows, groups=1)
        self._source = [(mean[0], std[0]) for mean, std in seen]
        channels = sum(len(mean) for mean, _ in self._source)
        scale = _PAPER_CHANNELS / channels * math.log(self._network.classes) / math.log(_PAPER_CLASSES)
        self._discrepancy_weight = discrepancy_weight * scale
        self._feature_mean = passed.features.mean(dim=0)

    def _observe(self, windows: Tensor, groups: int) -> tuple[list[tuple[Tensor, Tensor]], Pass]:
        """Return m and s (groups, C) of (2) at each layer, and the pass itself."""
        seen: list[tuple[Tensor, Tensor]] = []

        def rule(layer: Layer, x: Tensor) -> Tensor:
            # A single row without a time axis has a mean, itself, and no deviation to compare.
            mean, var = group_statistics(x, groups) or (x.reshape(groups, -1), layer.var.expand(groups, -1))
            scale = torch.rsqrt(layer.var + layer.eps)
            seen.append(((mean - layer.mean) * scale, var.sqrt() * scale))
            return normalise_with(layer, x, layer.mean, layer.var)

        passed = self._network.forward(windows, normalise=rule)
        return seen, passed

    def reset(self) -> State:
        """Return a search that starts at the identity, and features that stand at the source's mean."""
        return {
            **cma_start(self._dimensions, self._sigma),
            "best": torch.zeros(self._dimensions, dtype=torch.float64),
            "feature_mean": self._feature_mean,
            "generator": random_start(self._seed),
        }

    @torch.no_grad()
    def adapt_batch(self, state: State, windows: Tensor) -> tuple[State, Step]:
        """Answer with the best candidate, and let the search and the features' mean learn."""
        generator, count = resumed(state["generator"]), len(windows)
        sampled = cma_ask(state, self._population, generator).clamp(-_LIMIT, _LIMIT)
        candidates = torch.cat((state["best"][None], sampled))  # (1)
        groups = len(candidates)
        units = self._units.to_units(windows)
        shape = (groups, 1, -1, *(1,) * (units.dim() - 2))
        log_gain, offset = candidates.to(units.dtype).chunk(2, dim=1)  # (groups, C) each
        moved = units * log_gain.exp().reshape(shape) + offset.reshape(shape)  # (groups, n, C, ...)
        seen, passed = self._observe(self._units.to_raw(moved.flatten(0, 1)), groups)
        back = self._shift * (self._feature_mean - state["feature_mean"])  # (3)
        logits = passed.logits + self._network.tensors[f"{self._network.head}.weight"] @ back
        fitness = entropies(logits).reshape(groups, count).sum(dim=1)
        for (mean, std), (mean_s, std_s) in zip(seen, self._source, strict=True):
            away = (mean - mean_s).square().sum(dim=1) + (std - std_s).square().sum(dim=1)
            fitness = fitness + self._discrepancy_weight * count / 64 * away  # (2)
        fitness = fitness.nan_to_num(nan=torch.inf, posinf=torch.inf)
        best = int(fitness.argmin())
        answer = torch.softmax(logits.reshape(groups, count, -1)[best], dim=1)
        if not torch.isfinite(fitness[best]):
            return {**state, "generator": generator.get_state()}, Step(answer)
        now = passed.features.reshape(groups, count, -1)[best].mean(dim=0)
        return {
            **cma_tell(state, sampled, fitness[1:]),
            "best": candidates[best].clone(),
            "feature_mean": self._memory * state["feature_mean"] + (1 - self._memory) * now,  # (4)
            "generator": generator.get_state(),
        }, Step(answer, updates=1, selected=count)
