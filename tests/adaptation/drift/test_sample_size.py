"""The worth of dependent windows."""

import numpy as np
import pytest

from acclimate.adaptation.drift.sample_size import effective_size
from acclimate.adaptation.errors import ConfigError, DataError


def test_it_is_the_sample_size_that_gives_the_variance_of_a_mean() -> None:
    rng = np.random.default_rng(0)
    phi, n = 0.6, 200
    x = np.empty((n, 4000))
    x[0] = rng.normal(size=4000)
    for t in range(1, n):
        x[t] = phi * x[t - 1] + np.sqrt(1 - phi**2) * rng.normal(size=4000)
    assert 1 / x.mean(axis=0).var() == pytest.approx(effective_size(n, phi), rel=0.1)


def test_it_stays_between_one_and_n() -> None:
    assert effective_size(3, 0.99) == 1
    assert effective_size(3, -0.5) == 3


def test_impossible_values_are_refused() -> None:
    with pytest.raises(ConfigError, match="between -1 and 1"):
        effective_size(3, 1.0)
    with pytest.raises(DataError, match="at least one window"):
        effective_size(0, 0.0)
