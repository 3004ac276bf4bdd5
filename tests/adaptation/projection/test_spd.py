"""SPD against its three formulas in numpy, and its two ends."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim import AdamW

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.projection.spd import AdamSPD
from tests.adaptation.projection.problem import loss_at, parameters, take_steps


def lengths(p: dict[str, Tensor]) -> dict[str, float]:
    return {name: float((p[name] - start).detach().norm()) for name, start in parameters().items()}


def test_steps_are_those_of_the_formulas() -> None:
    p, lam = parameters(), 0.7
    anchor = {name: leaf.detach().numpy().copy() for name, leaf in p.items()}
    m = {name: np.zeros_like(value) for name, value in anchor.items()}
    v = {name: np.zeros_like(value) for name, value in anchor.items()}
    optimizer, decayed = AdamSPD(p.items(), lr=0.05, lam=lam), 0
    for step in range(1, 21):
        before = {name: leaf.detach().numpy().copy() for name, leaf in p.items()}
        take_steps(optimizer, p, step, step)
        for name, leaf in p.items():
            assert leaf.grad is not None
            g, old = leaf.grad.numpy(), before[name] - anchor[name]
            m[name] = 0.9 * m[name] + 0.1 * g
            v[name] = 0.999 * v[name] + 0.001 * g * g
            step_size = m[name] / (1 - 0.9**step) / (np.sqrt(v[name] / (1 - 0.999**step)) + 1e-8)
            new = before[name] - 0.05 * step_size - anchor[name]
            if (g * old).sum() > 0:
                r = min(max((np.linalg.norm(new) - np.linalg.norm(old)) / np.linalg.norm(new), 0), 1)
                new, decayed = new * (1 - lam * r), decayed + (r > 0)
            np.testing.assert_allclose(leaf.detach().numpy(), anchor[name] + new, atol=1e-9)
    assert decayed > 0


def test_without_lambda_it_is_adamw_bit_for_bit() -> None:
    p, plain = parameters(), parameters()
    take_steps(AdamSPD(p.items(), lr=0.05, lam=0.0), p, 1, 20)
    take_steps(AdamW(plain.values(), lr=0.05, weight_decay=0.0), plain, 1, 20)
    assert all(torch.equal(p[name], plain[name]) for name in p)


def test_with_lambda_one_a_step_home_that_went_out_lands_on_the_sphere_it_began_on() -> None:
    leaf = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = AdamSPD([leaf], lr=0.1)
    for _ in range(3):
        leaf.grad = torch.tensor([-1.0, -1.0], dtype=torch.float64)  # goes out to (0.3, 0.3)
        optimizer.step()
    start = float(leaf.detach().norm())
    leaf.grad = torch.tensor([0.1, 0.1], dtype=torch.float64)  # wants home, while momentum goes out
    optimizer.step()
    assert start == pytest.approx(0.3 * math.sqrt(2), abs=1e-6)
    assert float(leaf.detach().norm()) == pytest.approx(start, abs=1e-6)


def test_a_large_lambda_never_comes_out_on_the_other_side() -> None:
    p = parameters()
    optimizer = AdamSPD(p.items(), lr=0.05, lam=1e6)
    take_steps(optimizer, p, 1, 20)
    free = parameters()
    take_steps(AdamW(free.values(), lr=0.05, weight_decay=0.0), free, 1, 20)
    assert all(mine <= theirs for mine, theirs in zip(lengths(p).values(), lengths(free).values(), strict=True))


def test_twenty_steps_end_no_further_out_than_adamw_s() -> None:
    p, plain = parameters(), parameters()
    take_steps(AdamSPD(p.items(), lr=0.05), p, 1, 20)
    take_steps(AdamW(plain.values(), lr=0.05, weight_decay=0.0), plain, 1, 20)
    assert sum(lengths(p).values()) < sum(lengths(plain).values())


def test_excluded_parameters_are_adamw_s_and_broken_gradients_are_skipped() -> None:
    p, plain = parameters(), parameters()
    optimizer = AdamSPD(p.items(), lr=0.05, exclude=list(p))
    take_steps(optimizer, p, 1, 10)
    take_steps(AdamW(plain.values(), lr=0.05, weight_decay=0.0), plain, 1, 10)
    assert all(torch.equal(p[name], plain[name]) for name in p)
    loss_at(11, p).backward()
    kept = p["conv.bias"].detach().clone()
    p["conv.bias"].grad = torch.full_like(kept, math.nan)
    optimizer.step()
    assert torch.equal(p["conv.bias"], kept)
    assert optimizer.param_groups[0]["skipped"] == 1


def test_a_restored_optimizer_takes_the_same_ten_steps() -> None:
    p = parameters()
    optimizer = AdamSPD(p.items(), lr=0.05)
    take_steps(optimizer, p, 1, 10)
    q = {name: leaf.detach().clone().requires_grad_() for name, leaf in p.items()}
    restored = AdamSPD(q.items())
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    take_steps(optimizer, p, 11, 20)
    take_steps(restored, q, 11, 20)
    assert all(torch.equal(p[name], q[name]) for name in p)


@pytest.mark.parametrize(("options", "words"), [({"lam": -1.0}, "lam"), ({"exclude": ["nobody"]}, "nobody")])
def test_settings_that_cannot_be_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        AdamSPD(parameters().items(), **options)
