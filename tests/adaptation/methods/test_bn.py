"""Batch statistics with a prior, against float64."""

import numpy as np
import pytest
import torch

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.methods.bn import BatchNormPrior
from acclimate.adaptation.model.spec import NetworkSpec
from tests.adaptation.methods.numpy_net import Array, axes, run, shifted, softmax, source_for
from tests.adaptation.tiny_nets import CONV, MLP, SPECS, settled


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("prior", [0.0, 16.0])
def test_statistics_are_the_batch_s_and_the_source_s_by_their_weight(spec: NetworkSpec, prior: float) -> None:
    windows = shifted(spec, 8)

    def rule(_: int, x: Array, mean: Array, var: Array) -> tuple[Array, Array]:
        old, new = prior / (prior + 8), 8 / (prior + 8)
        return old * mean + new * x.mean(axis=axes(x)), old * var + new * x.var(axis=axes(x))

    method = BatchNormPrior(source_for(spec), prior)
    state, step = method.adapt_batch(method.reset(), windows)
    np.testing.assert_allclose(step.probabilities, softmax(run(settled(spec)[0], windows, rule)[0]), atol=1e-5)
    assert state == {}


def test_a_huge_prior_is_the_source() -> None:
    windows = shifted(CONV, 8)
    step = BatchNormPrior(source_for(CONV), 1e12).adapt_batch({}, windows)[1]
    torch.testing.assert_close(step.probabilities, torch.softmax(settled(CONV)[0](windows), dim=1))


def test_a_single_row_gets_the_source_s_answer_and_a_single_window_does_not() -> None:
    row, window = shifted(MLP, 1), shifted(CONV, 1)
    step = BatchNormPrior(source_for(MLP), 0).adapt_batch({}, row)[1]
    torch.testing.assert_close(step.probabilities, torch.softmax(settled(MLP)[0](row), dim=1))
    step = BatchNormPrior(source_for(CONV), 0).adapt_batch({}, window)[1]
    assert not torch.allclose(step.probabilities, torch.softmax(settled(CONV)[0](window), dim=1), atol=1e-3)


@pytest.mark.parametrize("prior", [-1.0, float("nan"), float("inf")])
def test_a_prior_that_is_none_is_refused(prior: float) -> None:
    with pytest.raises(ConfigError, match="prior"):
        BatchNormPrior(source_for(CONV), prior)
