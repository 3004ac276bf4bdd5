"""SAR: a step by hand, its resets, and an empty selection."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.method import SourceContext
from acclimate.adaptation.methods.sar import Sar
from acclimate.adaptation.model.nets import build
from acclimate.adaptation.model.spec import NetworkSpec
from tests.adaptation.methods import hand_net
from tests.adaptation.methods.numpy_net import shifted, source_for
from tests.adaptation.tiny_nets import CONV, MLP, tones, trained_on_tones

NAMES = hand_net.affine((0,))  # of two layers the last one is left out


def two_passes(t: hand_net.Tensors, x: hand_net.Array, radius: float) -> tuple[hand_net.Tensors, float, int]:
    """Return the second gradient, the second loss and how many windows gave them, by hand."""
    most = 0.4 * math.log(3)
    logits, trace = hand_net.forward(t, x)
    h, slope = hand_net.entropy(logits)
    kept = h < most
    first = hand_net.backward(t, trace, slope * kept[:, None] / kept.sum())
    norm = math.sqrt(sum((first[name] ** 2).sum() for name in NAMES))
    climbed = {**t, **{name: t[name] + radius * first[name] / norm for name in NAMES}}
    logits, trace = hand_net.forward(climbed, x)
    h, slope = hand_net.entropy(logits)
    kept &= h < most
    second = hand_net.backward(climbed, trace, slope * kept[:, None] / kept.sum())
    return second, float(h[kept].mean()), int(kept.sum())


@pytest.mark.parametrize("radius", [0.05, 2.0])  # the wide one makes other windows sure, which must stay outside
def test_two_steps_equal_the_ones_worked_by_hand_in_float64(radius: float) -> None:
    context = hand_net.source(sureness=8.0)
    method = Sar(context, learning_rate=0.05, radius=radius)
    state, t = method.reset(), hand_net.tensors_of(context)
    buffer, mean_entropy, kept_somewhere_less = hand_net.zeros(NAMES), None, False
    for seed in (1, 2):
        windows = shifted(MLP, 16, seed).double()
        state, step = method.adapt_batch(state, windows)
        x = hand_net.scaled(t, windows)
        np.testing.assert_allclose(step.probabilities, hand_net.softmax(hand_net.forward(t, x)[0]), atol=1e-12)
        gradients, loss, selected = two_passes(t, x, radius)
        for name in NAMES:
            buffer[name] = 0.9 * buffer[name] + gradients[name]
            t[name] = t[name] - 0.05 * 16 / 32 * buffer[name]  # 16 windows: half the rate
            np.testing.assert_allclose(state[name], t[name], atol=1e-12)
        mean_entropy = loss if mean_entropy is None else 0.9 * mean_entropy + 0.1 * loss
        assert float(state["mean_entropy"]) == pytest.approx(mean_entropy, rel=1e-6)
        assert step.selected == selected
        kept_somewhere_less |= 0 < selected < 16
    assert kept_somewhere_less
    assert method.adapts == NAMES


@pytest.mark.parametrize(("count", "share"), [(1, 2 / 32), (8, 8 / 32), (32, 1.0), (64, 1.0)])
def test_the_learning_rate_follows_the_batch_size(count: int, share: float) -> None:
    method = Sar(source_for(CONV), learning_rate=1e-3, entropy_share=1.0, reset_entropy=0.0)
    source = method.reset()
    state, _ = method.adapt_batch(source, shifted(CONV, count))
    for name in method.adapts:
        torch.testing.assert_close(source[name] - state[name], 1e-3 * share * state[f"momentum/{name}"])


def test_a_healthy_network_of_few_classes_is_never_reset() -> None:
    """The published 0.2 nats, made for 1000 classes, resets it at every batch."""
    model, _ = trained_on_tones()
    windows, labels = (torch.from_numpy(array) for array in tones(640, seed=9))
    context = SourceContext(model, windows[:200], labels[:200])
    for reset_entropy, resets in ((None, 0), (0.2, 10)):
        method = Sar(context, reset_entropy=reset_entropy)
        state, count = method.reset(), 0
        for start in range(0, 640, 64):
            state, step = method.adapt_batch(state, windows[start : start + 64])
            count += step.resets
        assert count == resets
    with torch.no_grad():
        answers = torch.softmax(model(windows), dim=1)
    mean = float(-(answers * answers.log()).sum(dim=1).mean())
    assert 0.2 / math.log(1000) * math.log(3) < mean < 0.2


def test_a_collapsed_network_goes_back_to_the_source_and_forgets_momentum_and_mean() -> None:
    method = Sar(hand_net.source(sureness=8.0))
    fresh, state = method.reset(), method.reset()
    for seed in range(3):
        state, _ = method.adapt_batch(state, shifted(MLP, 16, seed).double())
    state = {**state, "mean_entropy": torch.zeros(())}
    state, step = Sar(hand_net.source(sureness=8.0), reset_entropy=0.3).adapt_batch(state, shifted(MLP, 16).double())
    assert step.resets == 1
    assert set(state) == set(fresh)
    assert all(torch.equal(state[name], value) for name, value in fresh.items())


def test_momentum_moves_nothing_when_no_window_is_sure() -> None:
    method = Sar(source_for(CONV), entropy_share=1.0, reset_entropy=0.0)
    state, step = method.adapt_batch(method.reset(), shifted(CONV, 8))
    assert step.updates == 1
    assert max(float(state[f"momentum/{name}"].abs().max()) for name in method.adapts) > 0
    after, step = Sar(source_for(CONV), entropy_share=1e-6).adapt_batch(state, shifted(CONV, 8))
    assert after is state
    assert (step.updates, step.selected) == (0, 0)


def test_a_single_layer_is_kept_and_none_is_refused() -> None:
    one = build(NetworkSpec("mlp", channels=4, length=1, classes=2, widths=(3,))).eval()
    assert Sar(SourceContext(one, torch.zeros(2, 4, 1), torch.zeros(2))).adapts == NAMES
    with pytest.raises(ConfigError, match="no BatchNorm layer"):
        Sar(SourceContext(nn.Linear(2, 2).eval(), torch.zeros(2, 2), torch.zeros(2)))
    with pytest.raises(ConfigError, match="entropy_share"):
        Sar(source_for(CONV), entropy_share=0.0)
