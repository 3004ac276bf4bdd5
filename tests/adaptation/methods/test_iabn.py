"""IABN, one window and channel at a time in float64."""

import numpy as np
import pytest
import torch

from acclimate.adaptation.errors import ConfigError, NotAdaptable
from acclimate.adaptation.methods.iabn import Iabn
from acclimate.adaptation.model.spec import BATCH_NORM_EPS, NetworkSpec
from tests.adaptation.methods.numpy_net import Array, run, shifted, softmax, source_for
from tests.adaptation.tiny_nets import CONV, MLP, ODD, settled


def soft(difference: float, limit: float) -> float:
    return float(np.sign(difference) * max(abs(difference) - limit, 0))


@pytest.mark.parametrize("spec", [CONV, ODD])
@pytest.mark.parametrize("k", [0.0, 1.5, 4.0])
def test_only_what_is_beyond_k_standard_errors_is_corrected(spec: NetworkSpec, k: float) -> None:
    def rule(_: int, x: Array, mean: Array, var: Array) -> tuple[Array, Array]:
        samples = x.shape[2]
        means, variances = np.empty(x.shape[:2]), np.empty(x.shape[:2])
        for i, j in np.ndindex(*x.shape[:2]):
            spread = var[j] + BATCH_NORM_EPS
            means[i, j] = mean[j] + soft(x[i, j].mean() - mean[j], k * np.sqrt(spread / samples))
            limit = k * spread * np.sqrt(2 / (samples - 1))
            variances[i, j] = max(float(var[j] + soft(x[i, j].var(ddof=1) - var[j], limit)), 0.0)
        return means, variances

    windows = shifted(spec, 6)
    state, step = Iabn(source_for(spec), k).adapt_batch({}, windows)
    np.testing.assert_allclose(step.probabilities, softmax(run(settled(spec)[0], windows, rule)[0]), atol=2e-5)
    assert state == {}


def test_wide_limits_leave_the_source() -> None:
    windows = shifted(CONV, 6)
    step = Iabn(source_for(CONV), k=1e6).adapt_batch({}, windows)[1]
    torch.testing.assert_close(step.probabilities, torch.softmax(settled(CONV)[0](windows), dim=1))


def test_rows_without_time_are_refused_whatever_the_limits() -> None:
    with pytest.raises(NotAdaptable, match="without a time axis"):
        Iabn(source_for(MLP), k=0.0)


def test_neighbours_do_not_matter() -> None:
    method, windows = Iabn(source_for(CONV), 1.0), shifted(CONV, 6)
    singles = torch.cat([method.adapt_batch({}, window[None])[1].probabilities for window in windows])
    torch.testing.assert_close(method.adapt_batch({}, windows)[1].probabilities, singles)


def test_a_negative_k_is_refused() -> None:
    with pytest.raises(ConfigError, match="k: expected"):
        Iabn(source_for(CONV), -1.0)
