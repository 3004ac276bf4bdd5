"""Moments of a channel and of mixtures, against numpy over all values at once."""

import numpy as np
import pytest
import torch

from acclimate.adaptation.model.moments import blend, moments


@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 7), (1, 3, 7), (2, 3, 4, 5)])
def test_moments_are_those_of_all_values_of_a_channel(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape) + 3
    mean, var = moments(torch.from_numpy(x))
    by_channel = np.moveaxis(x, 1, 0).reshape(shape[1], -1)
    np.testing.assert_allclose(mean, by_channel.mean(axis=1))
    np.testing.assert_allclose(var, by_channel.var(axis=1))


def test_a_single_row_has_itself_as_mean_and_no_variance() -> None:
    mean, var = moments(torch.tensor([[3.0, -1.0]]))
    assert mean.tolist() == [3.0, -1.0]
    assert var.tolist() == [0.0, 0.0]


def test_the_mixture_of_two_parts_has_the_moments_of_the_whole() -> None:
    x = np.random.default_rng(1).standard_normal((10, 4)) * 2
    x[7:] += 5
    one, other = moments(torch.from_numpy(x[:7])), moments(torch.from_numpy(x[7:]))
    mean, var = blend(*one, *other, share=0.3)
    np.testing.assert_allclose(mean, x.mean(axis=0))
    np.testing.assert_allclose(var, x.var(axis=0))


def test_a_share_of_none_or_all_gives_one_part_exactly() -> None:
    one, other = moments(torch.randn(9, 4)), moments(torch.randn(9, 4) * 3)
    assert all(torch.equal(a, b) for a, b in zip(blend(*one, *other, share=0.0), one, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(blend(*one, *other, share=1.0), other, strict=True))


def test_blending_writes_into_none_of_its_arguments() -> None:
    one, other = moments(torch.ones(9, 4)), moments(torch.full((9, 4), 2.0))
    before = [tensor.clone() for tensor in (*one, *other)]
    blend(*one, *other, share=0.5)
    assert all(torch.equal(a, b) for a, b in zip(before, (*one, *other), strict=True))
