"""CoTTA: a step by hand, the views, the threshold, and the random way back."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from acclimate.adaptation.data.sensor_augmentations import augmented
from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.methods.cotta import Cotta
from acclimate.adaptation.model.network import Network, by_batch
from acclimate.adaptation.model.source_units import SourceUnits
from acclimate.adaptation.model.spec import NetworkSpec
from acclimate.adaptation.state.random_state import resumed
from tests.adaptation.methods import hand_net
from tests.adaptation.methods.numpy_net import shifted, source_for
from tests.adaptation.tiny_nets import CONV, MLP


def away(state: dict[str, Tensor], names: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the state with a student that already differs from its teacher."""
    generator = torch.Generator().manual_seed(4)
    moved = {n: state[n] + 0.1 * torch.randn(state[n].shape, generator=generator, dtype=state[n].dtype) for n in names}
    return {**state, **moved}


def test_two_steps_equal_the_ones_worked_by_hand_in_float64() -> None:
    context = hand_net.source(sureness=3.0)
    method = Cotta(context, restore=0.0, confidence=0.0)
    state: Any = away(dict(method.reset()), method.adapts)
    teacher = hand_net.tensors_of(context)
    student = {**teacher, **{name: state[name].numpy() for name in method.adapts}}
    m = hand_net.zeros(method.adapts)
    v = dict(m)
    for number in (1, 2):
        windows = shifted(MLP, 16, number).double()
        state, step = method.adapt_batch(state, windows)
        x = hand_net.scaled(teacher, windows)
        taught = hand_net.softmax(hand_net.forward(teacher, x)[0])
        np.testing.assert_allclose(step.probabilities, taught, atol=1e-12)
        logits, trace = hand_net.forward(student, x)
        gradients = hand_net.backward(student, trace, (hand_net.softmax(logits) - taught) / 16)
        for name in method.adapts:
            m[name] = 0.9 * m[name] + 0.1 * gradients[name]
            v[name] = 0.999 * v[name] + 0.001 * gradients[name] ** 2
            m_hat, v_hat = m[name] / (1 - 0.9**number), v[name] / (1 - 0.999**number)
            student[name] = student[name] - 1e-3 * m_hat / (np.sqrt(v_hat) + 1e-8)
            teacher[name] = 0.999 * teacher[name] + 0.001 * student[name]
            np.testing.assert_allclose(state[name], student[name], atol=1e-8)
            np.testing.assert_allclose(state[f"teacher/{name}"], teacher[name], atol=1e-10)
    assert set(method.adapts) == set(gradients)  # every parameter, and no buffer


@pytest.mark.parametrize("spec", [CONV, MLP])
@pytest.mark.parametrize("count", [1, 5])
def test_an_unsure_batch_is_answered_by_the_mean_over_views_each_with_its_own_statistics(
    spec: NetworkSpec, count: int
) -> None:
    context, windows = source_for(spec), shifted(spec, count)
    method = Cotta(context, views=3, confidence=1.1)
    state = method.reset()
    _, step = method.adapt_batch(state, windows)
    units, network = SourceUnits(context), Network(context.model)
    generator = resumed(state["generator"])
    views = units.to_raw(augmented(torch.cat([units.to_units(windows)] * 3), generator)).split(count)  # type: ignore[no-untyped-call]
    logits = torch.stack([network.forward(view, normalise=by_batch).logits for view in views]).mean(dim=0)
    torch.testing.assert_close(step.probabilities, torch.softmax(logits, dim=1), rtol=1e-4, atol=1e-5)
    sure = Cotta(context, views=3, confidence=0.0).adapt_batch(state, windows)[1].probabilities
    plain = torch.softmax(network.forward(windows, normalise=by_batch).logits, dim=1)
    torch.testing.assert_close(sure, plain)


def test_the_threshold_is_a_low_quantile_of_the_source_s_own_confidence() -> None:
    context = hand_net.source(sureness=2.0)
    t, order = hand_net.tensors_of(context), torch.randperm(96, generator=torch.Generator().manual_seed(0))
    batches = [hand_net.scaled(t, context.windows[rows]) for rows in (order[:64], order[64:])]
    confidences = np.concatenate([hand_net.softmax(hand_net.forward(t, x)[0]).max(axis=1) for x in batches])
    assert Cotta(context)._confidence == pytest.approx(np.quantile(confidences, 0.05) - 0.05, abs=1e-9)


@pytest.mark.parametrize(("restore", "low", "high"), [(0.0, 0.0, 0.0), (0.25, 0.15, 0.35), (1.0, 1.0, 1.0)])
def test_elements_go_back_to_the_source_with_their_probability(restore: float, low: float, high: float) -> None:
    method = Cotta(source_for(CONV), restore=restore)
    source = method.reset()
    state, _ = method.adapt_batch(away(dict(source), method.adapts), shifted(CONV, 4))
    same = torch.cat([(state[name] == source[name]).flatten() for name in method.adapts])
    assert low <= float(same.double().mean()) <= high


def test_the_teacher_is_not_restored_and_moments_stay() -> None:
    method = Cotta(source_for(CONV), restore=1.0)
    state, _ = method.adapt_batch(away(dict(method.reset()), method.adapts), shifted(CONV, 4))
    assert all(float(state[f"m/{name}"].abs().max()) > 0 for name in method.adapts)
    assert all(not torch.equal(state[f"teacher/{name}"], state[name]) for name in method.adapts)


@pytest.mark.parametrize("setting", [{"views": 0}, {"restore": 1.5}, {"teacher_decay": -0.1}])
def test_settings_out_of_range_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Cotta(source_for(CONV), **setting)
