"""EWC, LwF and A-GEM against numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from acclimate.adaptation.continual.penalties import agem, ewc, fisher, lwf


def test_fisher_is_the_mean_of_each_window_s_squared_gradient() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 2)).double().eval()
    windows, labels = torch.randn(5, 3, 1, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1])
    found = fisher(model, windows, labels)
    w, b, x = model[1].weight.detach().numpy(), model[1].bias.detach().numpy(), windows.numpy()[:, :, 0]
    z = x @ w.T + b
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    error = p - np.eye(2)[labels.numpy()]  # d loss / d logits
    np.testing.assert_allclose(found["1.bias"], (error**2).mean(axis=0), rtol=1e-9)
    squared = (error[:, :, None] * x[:, None, :]) ** 2
    np.testing.assert_allclose(found["1.weight"], squared.mean(axis=0), rtol=1e-9)


def test_the_ewc_penalty_is_zero_at_the_anchor_and_weighs_each_parameter() -> None:
    anchor, information = {"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([4.0, 0.5])}
    assert float(ewc(anchor, anchor, information, 3.0)) == 0.0
    assert float(ewc({"w": torch.tensor([2.0, 4.0])}, anchor, information, 3.0)) == pytest.approx(1.5 * (4 + 0.5 * 4))


def test_lwf_is_zero_for_equal_logits_and_the_divergence_otherwise() -> None:
    old, new = torch.tensor([[2.0, 0.0], [1.0, -1.0]]), torch.tensor([[0.0, 1.0], [1.0, -1.0]])
    assert float(lwf(old, old)) == pytest.approx(0.0, abs=1e-6)

    def softmax(z: np.ndarray) -> np.ndarray:
        return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)

    p, q = softmax(old.numpy() / 2.0), softmax(new.numpy() / 2.0)
    assert float(lwf(new, old)) == pytest.approx(4 * float((p * np.log(p / q)).sum(axis=1).mean()), rel=1e-5)


def test_after_agem_no_step_raises_the_loss_on_what_is_remembered() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        shapes = {"a": (3,), "b": (2, 2)}
        g = {n: torch.randn(shape, generator=generator, dtype=torch.float64) for n, shape in shapes.items()}
        reference = {n: torch.randn(value.shape, generator=generator, dtype=torch.float64) for n, value in g.items()}
        found = agem(g, reference)
        before = sum(float((g[name] * reference[name]).sum()) for name in g)
        after = sum(float((found[name] * reference[name]).sum()) for name in g)
        assert after >= -1e-9
        if before >= 0:
            assert all(torch.equal(found[name], g[name]) for name in g)


def test_agem_with_no_reference_gradient_divides_by_nothing() -> None:
    g = {"a": torch.ones(2)}
    assert torch.equal(agem(g, {"a": torch.zeros(2)})["a"], g["a"])
