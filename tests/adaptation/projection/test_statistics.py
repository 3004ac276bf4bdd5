"""The bound on running statistics against numpy."""

import math

import numpy as np
import pytest
import torch

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.projection.statistics import bounded_statistics


def state(mean: list[float], variance: list[float]) -> dict[str, torch.Tensor]:
    named = {"norm.running_mean": torch.tensor(mean), "norm.running_var": torch.tensor(variance)}
    return {**named, "norm.weight": torch.ones(len(mean)), "norm.num_batches_tracked": torch.tensor(3)}


def test_means_stay_within_rho_deviations_and_variances_within_a_factor() -> None:
    anchor = state([0.0, 1.0, -1.0], [4.0, 1.0, 0.25])
    found = bounded_statistics(state([10.0, 0.5, -2.5], [4.5, 100.0, 0.001]), anchor, rho=2.0, rho_v=math.log(4))
    np.testing.assert_allclose(found["norm.running_mean"], [4.0, 0.5, -2.0], rtol=1e-6)
    np.testing.assert_allclose(found["norm.running_var"], [4.5, 4.0, 0.0625], rtol=1e-6)
    assert set(found) == {"norm.running_mean", "norm.running_var"}


def test_the_anchor_itself_comes_back_bit_for_bit() -> None:
    anchor = state([0.3, 1.7], [0.1, 3.3])
    found = bounded_statistics(anchor, anchor)
    assert all(torch.equal(found[name], anchor[name]) for name in found)


def test_a_dead_channel_divides_by_nothing() -> None:
    found = bounded_statistics(state([1.0], [1.0]), state([0.0], [0.0]))
    assert all(bool(torch.isfinite(value).all()) for value in found.values())


def test_bounds_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="rho"):
        bounded_statistics({}, {}, rho=0)
