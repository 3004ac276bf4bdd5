"""CMA-ES as functions of a flat state: minimise without gradients by sampling, ranking and reshaping a Gaussian.

After "The CMA Evolution Strategy: A Tutorial", Hansen, 2016, with its default constants. d dimensions, the mu best of
a population x_1, x_2, ... with weights w_i, y_i = (x_i - m) / sigma, step = sum_i w_i y_i, m_w = 1 / sum_i w_i^2:

    (1) x ~ m + sigma N(0, C)
    (2) m   <- m + sigma step
    (3) p_s <- (1 - c_s) p_s + sqrt(c_s (2 - c_s) m_w) C^-1/2 step
    (4) p_c <- (1 - c_c) p_c + h sqrt(c_c (2 - c_c) m_w) step         h: 0 while p_s is too long, else 1
    (5) C   <- (1 - c_1 - c_m + (1 - h) c_1 c_c (2 - c_c)) C + c_1 p_c p_c' + c_m sum_i w_i y_i y_i'
    (6) sigma <- sigma exp(c_s / d_s (||p_s|| / E||N(0, I)|| - 1))

Above 40 dimensions C is diagonal, with c_1 and c_m times (d + 2) / 3 (separable CMA-ES, Ros and Hansen 2008): a full C
learns too little from some twenty candidates per batch to pay for its eigenvectors, which at d = 256 cost more than the
network. Where to switch is RECONSTRUCTED. Sigma stays within 10^-3 and 1, for a device's problem moves and a search
that has shrunk to a point would never follow.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from acclimate.adaptation.method import State

__all__ = ["FULL_UP_TO", "cma_ask", "cma_population", "cma_start", "cma_tell"]

FULL_UP_TO = 40
_SIGMAS = (1e-3, 1.0)
_SCALES = (1e-6, 1e6)


def cma_population(dimensions: int) -> int:
    """Return the usual number of candidates, 4 + floor(3 ln d).

    >>> cma_population(2), cma_population(256)
    (6, 20)
    """
    return 4 + int(3 * math.log(dimensions))


def cma_start(dimensions: int, sigma: float) -> dict[str, Tensor]:
    """Return a search around 0 with standard deviation `sigma` in each of `dimensions`; float64."""
    zeros, ones = torch.zeros(dimensions, dtype=torch.float64), torch.ones(dimensions, dtype=torch.float64)
    start = {
        "cma/mean": zeros,
        "cma/sigma": torch.tensor(sigma, dtype=torch.float64),
        "cma/path_sigma": zeros.clone(),
        "cma/path_c": zeros.clone(),
        "cma/covariance": ones,
        "cma/scales": ones.clone(),
        "cma/generation": torch.zeros((), dtype=torch.int64),
    }
    if dimensions <= FULL_UP_TO:
        start |= {"cma/covariance": torch.diag(ones), "cma/axes": torch.diag(ones)}
    return start


def cma_ask(state: State, count: int, generator: torch.Generator) -> Tensor:
    """Return `count` candidates (count, d)."""  # (1)
    mean = state["cma/mean"]
    steps = torch.randn((count, len(mean)), generator=generator, dtype=mean.dtype) * state["cma/scales"]
    if "cma/axes" in state:
        steps = steps @ state["cma/axes"].T
    return mean + state["cma/sigma"] * steps


@dataclass(frozen=True, eq=False)
class _Constants:
    """Weights (mu,) and learning rates, by dimension and population."""

    weights: Tensor
    effective: float
    c_sigma: float
    damping: float
    c_c: float
    c_1: float
    c_mu: float
    expected: float


def _constants(d: int, population: int, full: bool) -> _Constants:
    parents = population // 2
    weights = math.log((population + 1) / 2) - torch.arange(1, parents + 1, dtype=torch.float64).log()
    weights = weights / weights.sum()
    effective = 1 / float(weights.square().sum())
    c_sigma = (effective + 2) / (d + effective + 5)
    faster = 1.0 if full else (d + 2) / 3
    c_1 = min(1.0, faster * 2 / ((d + 1.3) ** 2 + effective))
    return _Constants(
        weights=weights,
        effective=effective,
        c_sigma=c_sigma,
        damping=1 + 2 * max(0.0, math.sqrt(max(0.0, (effective - 1) / (d + 1))) - 1) + c_sigma,
        c_c=(4 + effective / d) / (d + 4 + 2 * effective / d),
        c_1=c_1,
        c_mu=min(1 - c_1, faster * 2 * (effective - 2 + 1 / effective) / ((d + 2) ** 2 + effective)),
        expected=math.sqrt(d) * (1 - 1 / (4 * d) + 1 / (21 * d * d)),
    )


def cma_tell(state: State, candidates: Tensor, fitness: Tensor) -> dict[str, Tensor]:
    """Return the search after candidates (P, d), P at least 4, had this fitness (P,), low is good; none may be NaN."""
    mean, sigma, scales, axes = state["cma/mean"], state["cma/sigma"], state["cma/scales"], state.get("cma/axes")
    d, full = len(mean), axes is not None
    k = _constants(d, len(candidates), full)
    y = (candidates[fitness.argsort(stable=True)[: len(k.weights)]] - mean) / sigma  # (mu, d)
    step = k.weights @ y
    white = step / scales if axes is None else ((step @ axes) / scales) @ axes.T
    generation = state["cma/generation"] + 1
    path_sigma = (1 - k.c_sigma) * state["cma/path_sigma"] + math.sqrt(
        k.c_sigma * (2 - k.c_sigma) * k.effective
    ) * white
    length = float(path_sigma.norm()) / k.expected  # (3)
    settled = math.sqrt(1 - (1 - k.c_sigma) ** (2 * int(generation)))
    h = float(length / settled < 1.4 + 2 / (d + 1))
    path_c = (1 - k.c_c) * state["cma/path_c"] + h * math.sqrt(k.c_c * (2 - k.c_c) * k.effective) * step  # (4)
    one = torch.outer(path_c, path_c) if full else path_c.square()
    many = (y.T * k.weights) @ y if full else k.weights @ y.square()
    keep = 1 - k.c_1 - k.c_mu + (1 - h) * k.c_1 * k.c_c * (2 - k.c_c)
    covariance = keep * state["cma/covariance"] + k.c_1 * one + k.c_mu * many  # (5)
    new = {
        "cma/mean": mean + sigma * step,  # (2)
        "cma/sigma": (sigma * math.exp(min(1.0, k.c_sigma / k.damping * (length - 1)))).clamp(*_SIGMAS),  # (6)
        "cma/path_sigma": path_sigma,
        "cma/path_c": path_c,
        "cma/covariance": covariance,
        "cma/generation": generation,
    }
    if full:
        values, axes = torch.linalg.eigh(covariance)
        # Row by row in memory, as it is after saving and loading: sums in another order would differ in the last bits.
        return {**new, "cma/axes": axes.contiguous(), "cma/scales": values.clamp(min=0).sqrt().clamp(*_SCALES)}
    return {**new, "cma/scales": covariance.sqrt().clamp(*_SCALES)}
