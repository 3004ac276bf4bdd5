"""OFTTA: blended means and standard deviations, then prototypes, against float64."""

import numpy as np
import pytest
import torch

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.methods.oftta import Oftta, source_shares
from acclimate.adaptation.methods.t3a import T3a
from acclimate.adaptation.model.spec import NetworkSpec
from tests.adaptation.methods.numpy_net import Array, axes, run, shifted, softmax, source_for
from tests.adaptation.tiny_nets import CONV, MLP, SPECS, settled


def test_the_source_s_share_grows_geometrically_from_the_first_layer_to_the_last() -> None:
    assert source_shares(1) == (0.1,)
    assert source_shares(2) == pytest.approx((0.1, 0.99))
    shares = source_shares(5)
    assert shares[0] == 0.1
    np.testing.assert_allclose(np.divide(shares[1:], shares[:-1]), 9.9**0.25)


@pytest.mark.parametrize("spec", SPECS)
def test_a_step_equals_a_float64_reference(spec: NetworkSpec) -> None:
    shares = [0.1 * 9.9 ** (index / (spec.layers - 1)) for index in range(spec.layers)]

    def rule(index: int, x: Array, mean: Array, var: Array) -> tuple[Array, Array]:
        old = shares[index]
        sigma = old * np.sqrt(var) + (1 - old) * x.std(axis=axes(x))
        return old * mean + (1 - old) * x.mean(axis=axes(x)), sigma**2

    method, windows = Oftta(source_for(spec)), shifted(spec, 12)
    logits, features = run(settled(spec)[0], windows, rule)
    state, step = method.adapt_batch(method.reset(), windows)
    # Room for 25 per class holds all: every feature is in the sum of its class beside the rows of the head.
    start = T3a(source_for(spec), per_class=25).reset()["supports"].double().numpy().sum(axis=1)
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    np.add.at(start, logits.argmax(axis=1), units)
    templates = start / np.maximum(np.linalg.norm(start, axis=1, keepdims=True), 1e-12)
    np.testing.assert_allclose(step.probabilities, softmax(features @ templates.T), atol=2e-5)
    assert step.selected == 12
    assert state["supports"].shape == (spec.classes, 25, spec.features)


def test_a_single_row_keeps_the_source_s_statistics() -> None:
    row = shifted(MLP, 1)
    method, t3a = Oftta(source_for(MLP)), T3a(source_for(MLP), per_class=25)
    found = method.adapt_batch(method.reset(), row)[1].probabilities
    torch.testing.assert_close(found, t3a.adapt_batch(t3a.reset(), row)[1].probabilities)


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="first_share"):
        Oftta(source_for(CONV), first_share=0.0)
    with pytest.raises(ConfigError, match="last_share"):
        Oftta(source_for(CONV), last_share=1.1)
