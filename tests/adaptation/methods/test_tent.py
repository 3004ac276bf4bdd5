"""TENT: a step by hand, and what must not happen."""

import numpy as np
import pytest
import torch
from torch import nn

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.method import SourceContext
from acclimate.adaptation.methods.tent import Tent
from tests.adaptation.methods import hand_net
from tests.adaptation.methods.numpy_net import shifted, source_for
from tests.adaptation.tiny_nets import CONV, MLP


def test_two_steps_equal_the_ones_worked_by_hand_in_float64() -> None:
    context = hand_net.source()
    method = Tent(context)
    state, t = method.reset(), hand_net.tensors_of(context)
    m = hand_net.zeros(hand_net.affine())
    v = dict(m)
    for number in (1, 2):
        windows = shifted(MLP, 16, seed=number).double()
        state, step = method.adapt_batch(state, windows)
        logits, trace = hand_net.forward(t, hand_net.scaled(t, windows))
        np.testing.assert_allclose(step.probabilities, hand_net.softmax(logits), atol=1e-12)
        gradients = hand_net.backward(t, trace, hand_net.entropy(logits)[1] / 16)
        for name in hand_net.affine():
            m[name] = 0.9 * m[name] + 0.1 * gradients[name]
            v[name] = 0.999 * v[name] + 0.001 * gradients[name] ** 2
            m_hat, v_hat = m[name] / (1 - 0.9**number), v[name] / (1 - 0.999**number)
            t[name] = t[name] - 1e-3 * m_hat / (np.sqrt(v_hat) + 1e-8)
            np.testing.assert_allclose(state[name], t[name], atol=1e-9)
    assert set(method.adapts) == set(hand_net.affine())


def test_steps_lower_the_entropy_of_the_same_batch() -> None:
    method, windows = Tent(source_for(CONV), learning_rate=1e-2), shifted(CONV, 32)
    state, first = method.adapt_batch(method.reset(), windows)
    for _ in range(10):
        state, last = method.adapt_batch(state, windows)

    def mean_entropy(p: torch.Tensor) -> float:
        return float(-(p * p.log()).sum(dim=1).mean())

    assert mean_entropy(last.probabilities) < mean_entropy(first.probabilities) - 0.01


def test_a_row_without_statistics_is_answered_by_the_source_and_still_teaches() -> None:
    context, row = source_for(MLP), shifted(MLP, 1)
    method = Tent(context)
    state, step = method.adapt_batch(method.reset(), row)
    torch.testing.assert_close(step.probabilities, torch.softmax(context.model(row), dim=1))
    assert step.updates == 1
    assert any(not torch.equal(state[name], method.reset()[name]) for name in method.adapts)


def test_what_is_not_finite_teaches_nothing() -> None:
    method = Tent(source_for(CONV))
    state = method.reset()
    after, step = method.adapt_batch(state, torch.full((4, 3, 20), torch.nan))
    assert after is state
    assert (step.updates, step.selected) == (0, 0)


def test_a_network_without_batch_norm_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    with pytest.raises(ConfigError, match="no BatchNorm layer"):
        Tent(SourceContext(model, torch.zeros(3, 4, 1), torch.zeros(3)))
