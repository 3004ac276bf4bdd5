"""Entropy against float64 arithmetic."""

import math

import numpy as np
import torch

from acclimate.adaptation.model.losses import entropies
from tests.adaptation.methods.hand_net import entropy


def test_values_and_gradients_are_those_of_the_formula() -> None:
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(7, 5)) * 4).requires_grad_()
    expected, gradient = entropy(logits.detach().numpy())
    found = entropies(logits)
    np.testing.assert_allclose(found.detach(), expected, atol=1e-12)
    np.testing.assert_allclose(torch.autograd.grad(found.sum(), logits)[0], gradient, atol=1e-12)


def test_equal_logits_have_ln_k_and_a_certain_answer_none() -> None:
    assert math.isclose(float(entropies(torch.full((1, 6), 3.0))), math.log(6), rel_tol=1e-6)
    extreme = torch.tensor([[1e30, 0.0, -1e30]], requires_grad=True)
    value = entropies(extreme)
    assert float(value.detach()) == 0.0
    assert torch.isfinite(torch.autograd.grad(value.sum(), extreme)[0]).all()
