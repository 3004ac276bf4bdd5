"""LAME: steps on tiny nets against float64, and one worked by hand."""

import math
from typing import Literal

import numpy as np
import pytest
import torch

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.methods.lame import Lame, affinity, settle
from acclimate.adaptation.model.spec import NetworkSpec
from tests.adaptation.methods.numpy_net import Array, run, shifted, softmax, source_for
from tests.adaptation.tiny_nets import CONV, SPECS, settled


def weights_by_definition(features: Array, kind: str, k: int) -> Array:
    """Return W, one pair at a time."""
    unit = [feature / math.sqrt(float(feature @ feature)) for feature in features]
    apart = np.array([[math.dist(one, other) for other in unit] for one in unit])
    if kind == "rbf":
        scale = np.mean([sorted(row)[min(k, len(row)) - 1] for row in apart])
        return np.asarray(np.exp(-(apart**2) / (2 * scale**2)))
    weights = np.zeros_like(apart)
    for place, row in enumerate(apart):
        others = sorted((other for other in range(len(row)) if other != place), key=lambda other: row[other])
        weights[place, others[:k]] = 1
    return weights


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("kind", ["rbf", "knn"])
@pytest.mark.parametrize("count", [2, 17])
def test_a_step_equals_a_float64_reference(spec: NetworkSpec, kind: Literal["rbf", "knn"], count: int) -> None:
    windows = shifted(spec, count)
    logits, features = run(settled(spec)[0], windows)
    weights = weights_by_definition(features, kind, k=5)
    p = softmax(logits)
    y = p
    for _ in range(1000):
        y = softmax(np.log(p + 1e-10) + weights @ y)
    state, step = Lame(source_for(spec), kind).adapt_batch({}, windows)
    np.testing.assert_allclose(step.probabilities, y, atol=5e-4)
    assert np.abs(step.probabilities.numpy() - p).max() > 0.01
    assert state == {}


def test_two_windows_worked_by_hand() -> None:
    # Both neighbours of each other only: the sure one draws the doubtful one over.
    p = torch.tensor([[0.9, 0.1], [0.4, 0.6]], dtype=torch.float64)
    weights = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    a, b = 0.9, 0.4  # by hand: logit(a) = ln 9 + 2 b - 1, logit(b) = ln(2 / 3) + 2 a - 1
    for _ in range(200):
        a, b = 1 / (1 + math.exp(-(math.log(9) + 2 * b - 1))), 1 / (1 + math.exp(-(math.log(2 / 3) + 2 * a - 1)))
    assert b > 0.5
    np.testing.assert_allclose(settle(p.log(), weights)[:, 0], [a, b], atol=1e-4)


def test_a_batch_of_one_is_the_source() -> None:
    window = shifted(CONV, 1)
    for kind in ("rbf", "knn"):
        step = Lame(source_for(CONV), kind).adapt_batch({}, window)[1]
        torch.testing.assert_close(step.probabilities, torch.softmax(settled(CONV)[0](window), dim=1))


def test_equal_windows_are_full_neighbours_and_no_division_by_zero() -> None:
    features = torch.ones(30, 4)
    assert torch.equal(affinity(features, "rbf", 5), torch.ones(30, 30))
    neighbours = affinity(features, "knn", 5)
    assert neighbours.sum(dim=1).tolist() == [5.0] * 30
    assert not neighbours.diagonal().any()


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="kind"):
        Lame(source_for(CONV), "linear")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="neighbours"):
        Lame(source_for(CONV), neighbours=0)
