"""CMA-ES: one generation by hand, and whether it finds minima."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from acclimate.adaptation.methods.cma_es import FULL_UP_TO, cma_ask, cma_population, cma_start, cma_tell


def minimise(dimensions: int, generations: int, conditions: float, seed: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the mean after a search on a rotated (up to FULL_UP_TO) ellipsoid around 0.7, and the state."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.logspace(0, math.log10(conditions), dimensions, dtype=torch.float64)
    axes = torch.eye(dimensions, dtype=torch.float64)
    if dimensions <= FULL_UP_TO:
        axes = torch.linalg.qr(torch.randn(dimensions, dimensions, generator=generator, dtype=torch.float64))[0]
    state = cma_start(dimensions, 0.3)
    for _ in range(generations):
        candidates = cma_ask(state, cma_population(dimensions), generator)
        state = cma_tell(state, candidates, (((candidates - 0.7) @ axes).square() * weights).sum(dim=1))
    return state["cma/mean"], state


@pytest.mark.parametrize(("dimensions", "generations", "conditions"), [(2, 60, 1e2), (6, 150, 1e3), (60, 500, 10.0)])
def test_a_minimum_is_found(dimensions: int, generations: int, conditions: float) -> None:
    mean, state = minimise(dimensions, generations, conditions)
    np.testing.assert_allclose(mean, 0.7, atol=0.03)
    assert ("cma/axes" in state) == (dimensions <= FULL_UP_TO)
    assert 1e-3 <= float(state["cma/sigma"]) <= 1.0


@pytest.mark.parametrize("dimensions", [3, 50])
@pytest.mark.parametrize("path", [0.1, 3.0])  # the long one halts the path of the covariance
def test_a_generation_equals_the_one_worked_by_hand(dimensions: int, path: float) -> None:
    d, lam, mu = dimensions, 8, 4
    rng = np.random.default_rng(0)
    full = d <= FULL_UP_TO
    root = rng.normal(size=(d, d)) * 0.3 + np.eye(d)
    c = root @ root.T if full else rng.uniform(0.5, 2, d)
    values, axes = np.linalg.eigh(c) if full else (c, np.eye(d))
    old = {"mean": rng.normal(size=d), "path_sigma": path * rng.normal(size=d), "path_c": 0.1 * rng.normal(size=d)}
    old |= {"covariance": c, "scales": np.sqrt(values), **({"axes": axes} if full else {})}
    state = {f"cma/{name}": torch.from_numpy(value) for name, value in old.items()}
    state |= {"cma/sigma": torch.tensor(0.4, dtype=torch.float64), "cma/generation": torch.tensor(6)}
    x, fitness = old["mean"] + 0.4 * rng.normal(size=(lam, d)), rng.normal(size=lam)
    new = cma_tell(state, torch.from_numpy(x), torch.from_numpy(fitness))

    w = np.log(4.5) - np.log(np.arange(1, mu + 1))
    w /= w.sum()
    m_w = 1 / (w**2).sum()
    c_s, c_c = (m_w + 2) / (d + m_w + 5), (4 + m_w / d) / (d + 4 + 2 * m_w / d)
    d_s = 1 + 2 * max(0, np.sqrt((m_w - 1) / (d + 1)) - 1) + c_s
    c_1, c_m = 2 / ((d + 1.3) ** 2 + m_w), 2 * (m_w - 2 + 1 / m_w) / ((d + 2) ** 2 + m_w)
    if not full:
        c_1, c_m = c_1 * (d + 2) / 3, c_m * (d + 2) / 3
    y = (x[fitness.argsort()[:mu]] - old["mean"]) / 0.4
    step = (w[:, None] * y).sum(axis=0)
    white = axes @ np.diag(values**-0.5) @ axes.T @ step
    p_s = (1 - c_s) * old["path_sigma"] + np.sqrt(c_s * (2 - c_s) * m_w) * white
    chi = np.sqrt(d) * (1 - 1 / (4 * d) + 1 / (21 * d**2))
    h = float(np.linalg.norm(p_s) / np.sqrt(1 - (1 - c_s) ** 14) < (1.4 + 2 / (d + 1)) * chi)
    assert h == (path < 1)
    p_c = (1 - c_c) * old["path_c"] + h * np.sqrt(c_c * (2 - c_c) * m_w) * step
    grown = c_1 * np.outer(p_c, p_c) + c_m * sum(wi * np.outer(yi, yi) for wi, yi in zip(w, y, strict=True))
    kept = 1 - c_1 - c_m + (1 - h) * c_1 * c_c * (2 - c_c)
    np.testing.assert_allclose(new["cma/mean"], old["mean"] + 0.4 * step)
    np.testing.assert_allclose(new["cma/path_sigma"], p_s)
    np.testing.assert_allclose(new["cma/path_c"], p_c)
    np.testing.assert_allclose(new["cma/covariance"], kept * c + (grown if full else np.diag(grown)))
    assert float(new["cma/sigma"]) == pytest.approx(0.4 * np.exp(c_s / d_s * (np.linalg.norm(p_s) / chi - 1)))
    spread = new["cma/scales"].numpy() ** 2
    if full:
        rebuilt = new["cma/axes"].numpy() @ np.diag(spread) @ new["cma/axes"].numpy().T
        np.testing.assert_allclose(rebuilt, new["cma/covariance"], atol=1e-12)
    else:
        np.testing.assert_allclose(spread, new["cma/covariance"])


@pytest.mark.parametrize("dimensions", [3, 50])
def test_candidates_have_the_covariance_of_the_state(dimensions: int) -> None:
    state = minimise(dimensions, 20, 10.0)[1]
    drawn = cma_ask(state, 40000, torch.Generator().manual_seed(1))
    covariance = state["cma/covariance"] if dimensions == 3 else torch.diag(state["cma/covariance"])
    expected = state["cma/sigma"] ** 2 * covariance
    np.testing.assert_allclose(torch.cov(drawn.T), expected, atol=0.04 * float(expected.max()))
    np.testing.assert_allclose(drawn.mean(dim=0), state["cma/mean"], atol=0.03 * float(expected.max()) ** 0.5)


@pytest.mark.parametrize("dimensions", [4, 50])
@pytest.mark.parametrize("fitness", ["flat", "random", "infinite"])
def test_a_search_without_a_slope_stays_finite_and_within_its_widths(dimensions: int, fitness: str) -> None:
    generator, state = torch.Generator().manual_seed(0), cma_start(dimensions, 0.2)
    for _ in range(200):
        candidates = cma_ask(state, cma_population(dimensions), generator).clamp(-3, 3)
        values = torch.zeros(len(candidates)) if fitness == "flat" else torch.rand(len(candidates), generator=generator)
        state = cma_tell(state, candidates, values / 0 if fitness == "infinite" else values)
    assert all(torch.isfinite(value).all() for value in state.values())
    assert 1e-3 <= float(state["cma/sigma"]) <= 1.0
