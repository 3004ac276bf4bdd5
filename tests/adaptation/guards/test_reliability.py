"""The reliability filter: the bound grows with the number of classes and nothing broken passes."""

import math

import numpy as np
import pytest
import torch

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.guards.reliability import reliable


@pytest.mark.parametrize("classes", [2, 6, 100])
def test_the_mask_is_what_float64_entropies_below_the_share_of_ln_k_say(classes: int) -> None:
    rng = np.random.default_rng(classes)
    p = np.concatenate([rng.dirichlet(np.full(classes, total / classes), 100) for total in (0.6, 20.0)])
    expected = -(p * np.log(np.maximum(p, 1e-300))).sum(axis=1) < 0.4 * math.log(classes)
    assert expected.any()
    assert not expected.all()
    np.testing.assert_array_equal(reliable(torch.from_numpy(p)).numpy(), expected)


def test_a_sure_answer_is_reliable_and_a_uniform_one_or_nan_is_not() -> None:
    rows = torch.tensor([[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3], [math.nan, 0.5, 0.5]])
    assert reliable(rows).tolist() == [True, False, False]


@pytest.mark.parametrize("share", [0.0, -1.0, 1.1])
def test_a_share_out_of_range_is_an_error(share: float) -> None:
    with pytest.raises(ConfigError, match="of ln K"):
        reliable(torch.ones(1, 2) / 2, share)
