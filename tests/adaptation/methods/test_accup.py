"""ACCUP: the loss, the choice between classifier and prototypes, and a step, against float64 numpy."""

from typing import Any

import numpy as np
import pytest
import torch

from acclimate.adaptation.data.sensor_augmentations import magnitude_warp
from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.methods.accup import Accup, contrastive_loss
from acclimate.adaptation.model.source_units import SourceUnits
from acclimate.adaptation.model.spec import NetworkSpec
from acclimate.adaptation.state.random_state import resumed
from tests.adaptation.methods import hand_net
from tests.adaptation.methods.hand_net import Array
from tests.adaptation.methods.numpy_net import shifted, source_for
from tests.adaptation.tiny_nets import CONV, MLP, SPECS

TAU = 8.0  # at the default of 20 the prototypes win everywhere here


def contrast(logits: Array, labels: Array, temperature: float) -> float:
    """Return the loss, pair by pair."""
    unit = logits / np.linalg.norm(logits, axis=1, keepdims=True)
    losses = []
    for i in range(len(unit)):
        others = [a for a in range(len(unit)) if a != i]
        total = sum(np.exp(unit[i] @ unit[a] / temperature) for a in others)
        pairs = [j for j in others if labels[j] == labels[i]]
        losses.append(np.mean([-np.log(np.exp(unit[i] @ unit[j] / temperature) / total) for j in pairs]))
    return float(np.mean(losses))


def test_the_loss_is_the_sum_over_pairs() -> None:
    logits = np.random.default_rng(0).normal(size=(12, 4))
    labels = np.tile([0, 2, 1, 2], 3)
    found = contrastive_loss(torch.from_numpy(logits), torch.from_numpy(labels), 0.7)
    assert float(found) == pytest.approx(contrast(logits, labels, 0.7), abs=1e-12)


def test_a_step_equals_float64_numpy_with_numerical_slopes() -> None:
    context = hand_net.source(sureness=8.0)
    method, windows = Accup(context, filter_k=3, tau=TAU), shifted(MLP, 8).double()
    start = method.reset()
    state, step = method.adapt_batch(start, windows)

    t, units = hand_net.tensors_of(context), SourceUnits(context)
    warped = units.to_raw(magnitude_warp(units.to_units(windows), resumed(start["generator"]), 0.1))
    raw, moved = hand_net.scaled(t, windows), hand_net.scaled(t, warped)
    (q_raw, raw_trace), (q_moved, moved_trace) = hand_net.forward(t, raw), hand_net.forward(t, moved)
    q, z = (q_raw + q_moved) / 2, (raw_trace[2]["x"] + moved_trace[2]["x"]) / 2
    rows = t["head.weight"]
    support, support_logits = np.concatenate((rows, z)), np.concatenate((rows @ rows.T + t["head.bias"], q))
    doubt, classes = hand_net.entropy(support_logits)[0], support_logits.argmax(axis=1)
    unit = support / np.linalg.norm(support, axis=1, keepdims=True)
    scores = np.full((8, 3), -np.inf)
    for k in set(classes):
        members = np.flatnonzero(classes == k)
        prototype = unit[members[doubt[members].argsort()][:3]].sum(axis=0)
        scores[:, k] = TAU * (z @ prototype) / np.linalg.norm(z, axis=1) / np.linalg.norm(prototype)
    finite = np.where(np.isfinite(scores), scores, -600.0)
    surer = hand_net.entropy(finite)[0] < hand_net.entropy(q)[0]
    answer = np.where(surer[:, None], hand_net.softmax(finite), hand_net.softmax(q))
    assert 0 < surer.sum() < 8
    np.testing.assert_allclose(step.probabilities, answer, atol=1e-9)

    labels = np.tile(answer.argmax(axis=1), 3)

    def loss() -> float:
        q_raw, q_moved = hand_net.forward(t, raw)[0], hand_net.forward(t, moved)[0]
        return contrast(np.concatenate((q_raw, q_moved, (q_raw + q_moved) / 2)), labels, 0.7)

    assert set(method.adapts) == {*hand_net.affine(), "blocks.0.map.weight", "blocks.1.map.weight"}
    for name in method.adapts:
        flat = t[name].reshape(-1)  # a view: writing into it moves the net
        for i in range(0, flat.size, 1 if "norm" in name else 13):
            value = flat[i]
            flat[i] = value + 1e-5
            above = loss()
            flat[i] = value - 1e-5
            slope = (above - loss()) / 2e-5 + 1e-4 * value
            flat[i] = value
            expected = value - 3e-4 * slope / (abs(slope) + 1e-8)
            assert float(state[name].reshape(-1)[i]) == pytest.approx(expected, abs=1e-6), name


@pytest.mark.parametrize("spec", SPECS)
def test_a_batch_of_one_teaches_the_prototypes_and_not_the_network(spec: NetworkSpec) -> None:
    method = Accup(source_for(spec))
    start = method.reset()
    state, step = method.adapt_batch(start, shifted(spec, 1))
    assert (step.updates, step.selected) == (1, 1)
    assert not torch.equal(state["supports"], start["supports"])
    assert all(torch.equal(state[name], start[name]) for name in (*method.adapts, "adam_steps"))


@pytest.mark.parametrize("spec", SPECS)
def test_a_batch_of_one_and_the_same_window_is_answered_and_stays_finite(spec: NetworkSpec) -> None:
    method = Accup(source_for(spec))
    state = method.reset()
    for _ in range(3):
        state, step = method.adapt_batch(state, shifted(spec, 1).repeat(16, 1, 1))
        assert torch.isfinite(step.probabilities).all()
        torch.testing.assert_close(step.probabilities.sum(dim=1), torch.ones(16))
    assert all(torch.isfinite(state[name]).all() for name in method.adapts)


def test_convolutions_learn_their_kernels_and_the_head_does_not() -> None:
    names = Accup(source_for(CONV)).adapts
    assert {"blocks.0.map.weight", "blocks.1.map.weight"} <= set(names)
    assert not {name for name in names if name.startswith("head")}


@pytest.mark.parametrize("setting", [{"filter_k": 0}, {"tau": 0.0}, {"temperature": -1.0}])
def test_settings_out_of_range_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Accup(source_for(CONV), **setting)
