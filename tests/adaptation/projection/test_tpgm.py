"""TPGM against its radii's gradient worked out by finite differences, and what holds after each step."""

import copy
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor
from torch.optim import Adam

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.projection.norms import deviation_norms, into_ball
from acclimate.adaptation.projection.tpgm import TPGM
from tests.adaptation.projection.problem import loss_at, parameters, take_steps


def held_out(tensors: Mapping[str, Tensor]) -> Tensor:
    return loss_at(7, dict(tensors))


def train(p: dict[str, Tensor], optimizer: torch.optim.Optimizer, tpgm: TPGM, first: int, last: int) -> None:
    for step in range(first, last + 1):
        take_steps(optimizer, p, step, step)
        tpgm.step(lambda tensors: held_out({**p, **tensors}))


def test_the_first_step_starts_at_half_the_smallest_norm_and_moves_by_the_rate_against_the_gradient() -> None:
    p = parameters()
    anchor = {name: leaf.detach().clone() for name, leaf in p.items()}
    tpgm = TPGM(p.items(), rate=1e-3)
    take_steps(Adam(p.values(), lr=0.01), p, 1, 1)
    deviation = {name: leaf.detach() - anchor[name] for name, leaf in p.items()}
    norms = {name: deviation_norms(c) for name, c in deviation.items()}
    start = {name: norms[name].min() / 2 for name in p}

    def loss(radii: dict[str, Tensor]) -> float:
        placed = {n: into_ball(anchor[n], deviation[n], norms[n], radii[n]) for n in p}
        return float(held_out(placed))

    tpgm.step(held_out)
    for name, radius in tpgm.radii.items():
        step = 1e-6
        slope = (loss({**start, name: start[name] + step}) - loss({**start, name: start[name] - step})) / (2 * step)
        expected = float(start[name]) - (1e-3 if slope > 0 else -1e-3)  # Adam's first step is the rate
        assert float(radius.detach()) == pytest.approx(expected, abs=1e-7)
        torch.testing.assert_close(
            p[name].detach(), into_ball(anchor[name], deviation[name], norms[name], radius.detach()), rtol=0, atol=1e-12
        )


def test_after_each_step_nothing_is_outside_its_ball_and_excluded_parameters_are_free() -> None:
    p, plain = parameters(), parameters()
    anchor = {name: leaf.detach().clone() for name, leaf in p.items()}
    optimizer, tpgm = Adam(p.values(), lr=0.01), TPGM(p.items(), exclude=["head.weight"])
    for step in range(1, 11):
        train(p, optimizer, tpgm, step, step)
        for name, radius in tpgm.radii.items():
            assert float(radius.detach()) >= 1e-8
            assert (
                float(deviation_norms(p[name].detach() - anchor[name]).max())
                <= float(radius.detach()) * 1.000001 + 2e-8
            )
    assert set(tpgm.radii) == {"conv.weight", "conv.bias"}
    take_steps(Adam(plain.values(), lr=0.01), plain, 1, 1)
    first = parameters()
    train(first, Adam(first.values(), lr=0.01), TPGM(first.items(), exclude=["head.weight"]), 1, 1)
    assert torch.equal(first["head.weight"], plain["head.weight"])


def test_a_restored_one_goes_on_bit_for_bit() -> None:
    p = parameters()
    optimizer, tpgm = Adam(p.values(), lr=0.01), TPGM(p.items())
    train(p, optimizer, tpgm, 1, 5)
    q = {name: leaf.detach().clone().requires_grad_() for name, leaf in p.items()}
    optimizer_again, tpgm_again = Adam(q.values(), lr=0.01), TPGM(q.items(), anchor=parameters())
    optimizer_again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    with torch.no_grad():
        for name, radius in tpgm_again.radii.items():
            radius.copy_(tpgm.radii[name])
    tpgm_again.optimizer.load_state_dict(copy.deepcopy(tpgm.optimizer.state_dict()))
    train(p, optimizer, tpgm, 6, 12)
    train(q, optimizer_again, tpgm_again, 6, 12)
    assert all(torch.equal(p[name], q[name]) for name in p)


def test_what_it_is_asked_leaves_no_gradient_behind() -> None:
    p = parameters()
    TPGM(p.items()).step(held_out)
    assert all(leaf.grad is None for leaf in p.values())


def test_settings_that_cannot_be_are_refused() -> None:
    p = parameters()
    with pytest.raises(ConfigError, match="rate"):
        TPGM(p.items(), rate=0)
    with pytest.raises(ConfigError, match="nobody"):
        TPGM(p.items(), exclude=["nobody"])
    with pytest.raises(ConfigError, match="no parameter is left"):
        TPGM(p.items(), exclude=list(p))
