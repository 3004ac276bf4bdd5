"""Distances by hand and Lipschitz constants against the singular values of the written-out maps."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.model.nets import build
from acclimate.adaptation.model.spec import NetworkSpec
from acclimate.adaptation.projection.report import distances, lipschitz


def test_distances_are_those_worked_out_by_hand() -> None:
    anchor = {
        "w": torch.tensor([[3.0, 4.0]]),
        "norm.running_mean": torch.tensor([0.0, 1.0]),
        "norm.running_var": torch.tensor([4.0, 1.0]),
        "count": torch.tensor(1),
    }
    now = {
        "w": torch.tensor([[3.0, 5.0]]),
        "norm.running_mean": torch.tensor([1.0, 1.5]),
        "norm.running_var": torch.tensor([1.0, 1.0]),
        "count": torch.tensor(9),
    }
    weight, mean, variance = distances(now, anchor)
    assert (weight.name, weight.length, weight.relative) == ("w", pytest.approx(1.0), pytest.approx(0.2))
    assert mean.relative == pytest.approx(0.5)
    assert variance.relative == pytest.approx(math.log(4))


def test_an_anchor_of_another_network_is_refused() -> None:
    with pytest.raises(ConfigError, match="no w of shape"):
        distances({"w": torch.zeros(2)}, {"w": torch.zeros(3)})


def test_each_layer_s_constant_is_its_largest_singular_value() -> None:
    torch.manual_seed(0)
    model = build(NetworkSpec("conv1d", 2, 16, 3, (4, 5), (3, 3))).eval()
    with torch.no_grad():
        model.blocks[0].norm.weight.copy_(torch.tensor([1.0, -3.0, 0.5, 2.0]))
        model.blocks[0].norm.running_var.copy_(torch.tensor([4.0, 9.0, 1.0, 0.25]))
    found = lipschitz(model, torch.randn(2, 2, 16), iterations=500)
    # the convolution as a matrix, from its answers to unit vectors
    unit = torch.eye(2 * 16).reshape(32, 2, 16)
    matrix = model.blocks[0].map(unit).detach().reshape(32, -1).double().numpy()
    assert found["blocks.0.map"] == pytest.approx(np.linalg.svd(matrix, compute_uv=False)[0], rel=1e-3)
    assert found["blocks.0.norm"] == pytest.approx(2.0 / math.sqrt(0.25 + 1e-5), rel=1e-6)
    head = np.linalg.svd(model.head.weight.detach().double().numpy(), compute_uv=False)[0]
    assert found["head"] == pytest.approx(head, rel=1e-3)
    assert found["network"] == pytest.approx(math.prod(v for name, v in found.items() if name != "network"), rel=1e-9)


def test_the_product_bounds_what_the_network_does_to_a_difference() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2)).eval()
    bound = lipschitz(model, torch.randn(3, 6), iterations=200)["network"]
    x, y = torch.randn(100, 6), torch.randn(100, 6)
    with torch.no_grad():
        stretched = (model(x) - model(y)).norm(dim=1) / (x - y).norm(dim=1)
    assert 0 < float(stretched.max()) <= bound * 1.001


def test_a_network_in_training_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match="training mode"):
        lipschitz(nn.Linear(2, 2), torch.zeros(1, 2))
