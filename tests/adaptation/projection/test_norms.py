"""Norms and projection against float64 numpy, and the properties that a projection has."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from acclimate.adaptation.projection.norms import Norm, deviation_norms, into_ball

SHAPES = [(5,), (4, 3), (4, 3, 2)]


def draw(seed: int, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_mars_sums_each_row_and_takes_a_vector_as_one_block(shape: tuple[int, ...]) -> None:
    c = draw(0, shape)
    rows = np.abs(c.numpy()).reshape(1 if c.dim() == 1 else shape[0], -1).sum(axis=1)
    found = deviation_norms(c, "mars")
    np.testing.assert_allclose(found.flatten().numpy(), rows, atol=2e-8)
    assert found.dim() == c.dim()


@pytest.mark.parametrize("shape", SHAPES)
def test_l2_is_one_number(shape: tuple[int, ...]) -> None:
    c = draw(1, shape)
    np.testing.assert_allclose(deviation_norms(c, "l2").flatten().numpy(), [np.linalg.norm(c.numpy())], atol=2e-8)


@given(
    seed=st.integers(0, 2**32),
    radius=st.floats(0, 10),
    shape=st.sampled_from(SHAPES),
    norm=st.sampled_from(["mars", "l2"]),
)
def test_the_result_lies_on_the_segment_inside_the_ball_and_stays_there(
    seed: int, radius: float, shape: tuple[int, ...], norm: Norm
) -> None:
    anchor, c, r = draw(seed, shape), draw(seed + 1, shape), torch.tensor(radius, dtype=torch.float64)
    landed = into_ball(anchor, c, deviation_norms(c, norm), r)
    moved = landed - anchor
    share = moved / c
    assert float(share.min()) > -1e-12
    assert float(share.max()) < 1 + 1e-12
    norms = deviation_norms(moved, norm)
    assert bool((norms <= torch.maximum(r, torch.tensor(2e-8)) * (1 + 1e-6) + 2e-8).all())
    again = into_ball(anchor, moved, norms, r)
    torch.testing.assert_close(again, landed, rtol=0, atol=3e-8)


@pytest.mark.parametrize("shape", SHAPES[1:])
def test_rows_are_projected_each_for_itself(shape: tuple[int, ...]) -> None:
    anchor, c, order = draw(2, shape), draw(3, shape), torch.tensor([2, 0, 3, 1])
    radius = torch.tensor(1.0)
    straight = into_ball(anchor, c, deviation_norms(c), radius)
    permuted = into_ball(anchor[order], c[order], deviation_norms(c[order]), radius)
    assert torch.equal(permuted, straight[order])


def test_an_endless_ball_is_no_constraint_and_an_empty_one_is_the_anchor() -> None:
    anchor, c = draw(4, (4, 3)), draw(5, (4, 3))
    norms = deviation_norms(c)
    assert torch.equal(into_ball(anchor, c, norms, torch.tensor(torch.inf)), anchor + c)
    assert torch.equal(into_ball(anchor, c, norms, torch.tensor(0.0)), anchor)
