"""The two losses at their known values, against loops in numpy, and what they must not depend on."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from acclimate.adaptation.alignment.contrastive import alignment_loss, ssl_loss


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_self_supervised_loss_is_that_of_a_loop() -> None:
    first, second, tau = draw(0, 5, 3), draw(1, 5, 3), 0.3
    z = np.concatenate([first.numpy(), second.numpy()])
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    total = 0.0
    for i in range(10):
        others = [math.exp(z[i] @ z[j] / tau) for j in range(10) if j != i]
        total -= math.log(math.exp(z[i] @ z[(i + 5) % 10] / tau) / sum(others))
    assert float(ssl_loss(first, second, tau)) == pytest.approx(total / 10, rel=1e-9)


def test_constant_features_give_the_logarithm_of_the_batch() -> None:
    ones = torch.ones(8, 4, dtype=torch.float64)
    assert float(alignment_loss(ones, ones)) == pytest.approx(math.log(8))
    assert float(ssl_loss(ones, ones)) == pytest.approx(math.log(15))


def test_perfect_matches_of_orthogonal_features_cost_nothing_as_the_temperature_falls() -> None:
    eye = torch.eye(6, dtype=torch.float64)
    losses = [float(alignment_loss(eye, eye, temperature)) for temperature in (1.0, 0.1, 0.02)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 1e-15


def test_alignment_does_not_depend_on_the_order_of_the_batch_or_the_size_of_features() -> None:
    a, b, order = draw(2, 7, 4), draw(3, 7, 4), torch.tensor([3, 1, 6, 0, 5, 2, 4])
    labels = torch.tensor([0, 1, 0, 2, 1, 0, 2])
    for given in (None, labels):
        loss = float(alignment_loss(a, b, labels=given))
        turned = None if given is None else given[order]
        assert float(alignment_loss(a[order], b[order], labels=turned)) == pytest.approx(loss)
        assert float(alignment_loss(5 * a, 0.1 * b, labels=given)) == pytest.approx(loss)


def test_windows_of_one_class_are_no_negatives_of_each_other() -> None:
    a, b, labels, tau = draw(4, 4, 3), draw(5, 4, 3), torch.tensor([0, 0, 1, 2]), 0.1
    left = a.numpy() / np.linalg.norm(a.numpy(), axis=1, keepdims=True)
    right = b.numpy() / np.linalg.norm(b.numpy(), axis=1, keepdims=True)
    similar = np.exp(left @ right.T / tau)
    allowed = (labels[:, None] != labels).numpy() | np.eye(4, dtype=bool)
    rows = -np.log(np.diag(similar) / (similar * allowed).sum(axis=1))
    columns = -np.log(np.diag(similar) / (similar * allowed).sum(axis=0))
    found = float(alignment_loss(a, b, tau, labels))
    assert found == pytest.approx((rows.mean() + columns.mean()) / 2, rel=1e-9)
    assert float(alignment_loss(a, b, tau, torch.zeros(4, dtype=torch.int64))) == pytest.approx(0.0)


def test_no_gradient_reaches_the_teacher() -> None:
    a, b = draw(6, 5, 3).requires_grad_(), draw(7, 5, 3).requires_grad_()
    alignment_loss(a, b).backward()
    assert a.grad is not None
    assert b.grad is None
