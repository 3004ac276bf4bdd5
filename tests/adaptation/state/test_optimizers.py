"""The functional optimizers against torch.optim, in float64."""

import pytest
import torch
from torch import Tensor

from acclimate.adaptation.state.optimizers import adam_start, adam_step, all_finite, sgd_start, sgd_step

SHAPES = {"weight": (3, 4), "bias": (5,)}


def parameters() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in SHAPES.items()}


def gradients_at(step: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(step + 1)
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in SHAPES.items()}


def by_torch(optimizer: torch.optim.Optimizer, leaves: dict[str, Tensor]) -> None:
    for step in range(20):
        for name, gradient in gradients_at(step).items():
            leaves[name].grad = gradient
        optimizer.step()


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.9)])
def test_twenty_steps_of_adam_are_torch_s(weight_decay: float, betas: tuple[float, float]) -> None:
    leaves = parameters()
    by_torch(torch.optim.Adam(leaves.values(), lr=0.01, betas=betas, weight_decay=weight_decay), leaves)
    values = parameters()
    state = {**values, **adam_start(values)}
    for step in range(20):
        values = {name: state[name] for name in SHAPES}
        state = adam_step(values, gradients_at(step), state, 0.01, betas, weight_decay=weight_decay)
    for name, leaf in leaves.items():
        torch.testing.assert_close(state[name], leaf, rtol=0, atol=1e-12)
    assert int(state["adam_steps"]) == 20


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_twenty_steps_of_sgd_are_torch_s(momentum: float) -> None:
    leaves = parameters()
    by_torch(torch.optim.SGD(leaves.values(), lr=0.01, momentum=momentum), leaves)
    values = parameters()
    state = {**values, **sgd_start(values)}
    for step in range(20):
        state = sgd_step({name: state[name] for name in SHAPES}, gradients_at(step), state, 0.01, momentum)
    for name, leaf in leaves.items():
        torch.testing.assert_close(state[name], leaf, rtol=0, atol=1e-12)


def test_a_step_writes_into_nothing_that_it_was_given() -> None:
    for start, step in ((adam_start, adam_step), (sgd_start, sgd_step)):
        values, gradients = parameters(), gradients_at(0)
        state = {**values, **start(values)}
        copies = {name: value.clone() for name, value in state.items()}
        new = step(values, gradients, state, 0.1)
        assert set(new) == set(state)
        assert all(torch.equal(state[name], copy) for name, copy in copies.items())
        assert all(torch.equal(gradients[name], gradients_at(0)[name]) for name in gradients)
        assert not {value.data_ptr() for value in new.values()} & {value.data_ptr() for value in state.values()}


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_one_value_that_is_not_finite_is_seen(bad: float) -> None:
    assert all_finite([torch.ones(3), torch.zeros(2, 2)])
    assert not all_finite([torch.ones(3), torch.tensor([[0.0, bad]])])
    assert not all_finite([torch.tensor([torch.inf, -torch.inf])])
