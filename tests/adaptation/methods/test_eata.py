"""EATA: a step by hand with its Fisher weights, its two filters, and an empty selection."""

import math

import numpy as np
import pytest
import torch

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.method import SourceContext
from acclimate.adaptation.methods.eata import Eata, cosine_margin_for
from tests.adaptation.methods import hand_net
from tests.adaptation.methods.numpy_net import shifted, source_for
from tests.adaptation.tiny_nets import CONV, MLP


def fisher_by_hand(t: hand_net.Tensors, context: SourceContext) -> hand_net.Tensors:
    order = torch.randperm(96, generator=torch.Generator().manual_seed(context.seed))
    squares = []
    for rows in (order[:64], order[64:]):
        logits, trace = hand_net.forward(t, hand_net.scaled(t, context.windows[rows]))
        of_logits = (hand_net.softmax(logits) - np.eye(3)[logits.argmax(axis=1)]) / len(rows)
        squares.append({name: value**2 for name, value in hand_net.backward(t, trace, of_logits).items()})
    return {name: (squares[0][name] + squares[1][name]) / 2 for name in hand_net.affine()}


def cosine(a: hand_net.Array, b: hand_net.Array) -> hand_net.Array:
    return np.asarray(b @ a / np.linalg.norm(a) / np.linalg.norm(b, axis=1))


@pytest.mark.parametrize("fisher", [True, False])
def test_steps_equal_the_ones_worked_by_hand_in_float64(fisher: bool) -> None:
    context = hand_net.source(sureness=8.0)
    method = Eata(context, learning_rate=0.05, fisher_weight=7.0, cosine_margin=0.8, fisher=fisher)
    state, t = method.reset(), hand_net.tensors_of(context)
    source, weights, most = dict(t), fisher_by_hand(t, context), 0.4 * math.log(3)
    buffer, mean_answer, counts = hand_net.zeros(hand_net.affine()), None, []
    for seed in (1, 2, 3):
        windows = shifted(MLP, 16, seed).double()
        state, step = method.adapt_batch(state, windows)
        logits, trace = hand_net.forward(t, hand_net.scaled(t, windows))
        p = hand_net.softmax(logits)
        np.testing.assert_allclose(step.probabilities, p, atol=1e-12)
        h, slope = hand_net.entropy(logits)
        kept = h < most
        sure = int(kept.sum())
        if mean_answer is not None:
            kept &= np.abs(cosine(mean_answer, p)) < 0.8
        counts.append((sure, int(kept.sum())))
        gradients = hand_net.backward(t, trace, slope * (np.exp(most - h) * kept / kept.sum())[:, None])
        for name in hand_net.affine():
            penalty = 2 * 7.0 * weights[name] * (t[name] - source[name]) if fisher else 0.0
            buffer[name] = 0.9 * buffer[name] + gradients[name] + penalty
            t[name] = t[name] - 0.05 * buffer[name]
            np.testing.assert_allclose(state[name], t[name], atol=1e-12)
        now = p[kept].mean(axis=0)
        mean_answer = now if mean_answer is None else 0.9 * mean_answer + 0.1 * now
        np.testing.assert_allclose(state["mean_answer"], mean_answer, atol=1e-12)
        assert step.selected == counts[-1][1]
    assert all(0 < kept <= sure < 16 for sure, kept in counts)
    assert any(kept < sure for sure, kept in counts[1:])  # the second filter took something too


def test_momentum_and_penalty_move_nothing_when_nothing_is_selected() -> None:
    context = source_for(CONV)
    state, step = (method := Eata(context, entropy_share=1.0)).adapt_batch(method.reset(), shifted(CONV, 8))
    assert step.updates == 1
    for strict in (Eata(context, entropy_share=1e-6), Eata(context, entropy_share=1.0, cosine_margin=0.0)):
        after, step = strict.adapt_batch(state, shifted(CONV, 8))
        assert after is state
        assert (step.updates, step.selected) == (0, 0)


def test_the_same_window_over_and_over_stops_teaching() -> None:
    method, windows = Eata(hand_net.source(sureness=8.0), entropy_share=1.0), shifted(MLP, 1).double()
    state, first = method.adapt_batch(method.reset(), windows)
    _, second = method.adapt_batch(state, windows)
    assert (first.selected, second.selected) == (1, 0)


@pytest.mark.parametrize("classes", range(2, 21))
def test_a_sure_answer_against_a_balanced_mean_passes_the_margin_whatever_the_classes(classes: int) -> None:
    """With the published 0.05, none would up to 400 classes."""
    assert 1 / math.sqrt(classes) < cosine_margin_for(classes) < 1.0


def test_a_share_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match="entropy_share"):
        Eata(source_for(CONV), entropy_share=1.5)
