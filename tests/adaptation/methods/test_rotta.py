"""RoTTA: an update against float64 numpy, when updates fall, and who answers."""

from typing import Any

import numpy as np
import pytest
import torch

from acclimate.adaptation.data.sensor_augmentations import augmented
from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.methods.rotta import Rotta
from acclimate.adaptation.model.source_units import SourceUnits
from acclimate.adaptation.model.spec import NetworkSpec
from acclimate.adaptation.state.random_state import resumed
from tests.adaptation.methods import hand_net
from tests.adaptation.methods.hand_net import Array, Tensors
from tests.adaptation.methods.numpy_net import shifted, source_for
from tests.adaptation.tiny_nets import CONV, MLP, SPECS

RATE = 0.05


def robust(t: Tensors, x: Array) -> tuple[Array, Tensors]:
    """Return logits of a pass with blended statistics, and those."""
    found: Tensors = {}
    for index in range(2):
        norm = f"blocks.{index}.norm."
        h = x @ t[f"blocks.{index}.map.weight"].T
        mean = (1 - RATE) * t[norm + "running_mean"] + RATE * h.mean(axis=0)
        var = (1 - RATE) * t[norm + "running_var"] + RATE * h.var(axis=0)
        found |= {norm + "running_mean": mean, norm + "running_var": var}
        x = np.maximum((h - mean) / np.sqrt(var + hand_net.EPS) * t[norm + "weight"] + t[norm + "bias"], 0)
    return x @ t["head.weight"].T + t["head.bias"], found


def test_an_update_equals_float64_numpy_with_numerical_slopes() -> None:
    context = hand_net.source(sureness=3.0)
    method = Rotta(context, memory=8)
    start, windows = method.reset(), shifted(MLP, 8).double()
    state, step = method.adapt_batch(start, windows)
    held = state["memory/classes"] >= 0
    kept, age = state["memory/windows"][held], state["memory/ages"][held].numpy() / 8
    assert (step.updates, step.selected) == (1, int(held.sum()))

    t, units = hand_net.tensors_of(context), SourceUnits(context)
    view = units.to_raw(augmented(units.to_units(kept), resumed(start["generator"])))
    raw, moved = hand_net.scaled(t, kept), hand_net.scaled(t, view)
    logits, teacher_statistics = robust(t, raw)
    taught, weight = hand_net.softmax(logits), np.exp(-age) / (1 + np.exp(-age))

    def loss(changed: Tensors) -> float:
        log_p = np.log(hand_net.softmax(robust(changed, moved)[0]))
        return float((weight * -(taught * log_p).sum(axis=1)).mean())

    for name in hand_net.affine():
        for i in range(len(t[name])):
            step_size = np.zeros_like(t[name])
            step_size[i] = 1e-5
            slope = (loss({**t, name: t[name] + step_size}) - loss({**t, name: t[name] - step_size})) / 2e-5
            student = t[name][i] - 1e-3 * slope / (abs(slope) + 1e-8)
            assert float(state[name][i]) == pytest.approx(student, abs=1e-6)
            teacher = 0.999 * t[name][i] + 0.001 * student
            assert float(state[f"teacher/{name}"][i]) == pytest.approx(teacher, abs=1e-9)
    for name, value in teacher_statistics.items():
        np.testing.assert_allclose(state[f"teacher/{name}"], value, atol=1e-12)
    for name, value in robust(t, moved)[1].items():
        np.testing.assert_allclose(state[name], value, atol=1e-12)


@pytest.mark.parametrize("spec", SPECS)
def test_windows_one_by_one_leave_what_a_batch_leaves(spec: NetworkSpec) -> None:
    method, windows = Rotta(source_for(spec)), shifted(spec, 64)
    together, step = method.adapt_batch(method.reset(), windows)
    alone, answers = method.reset(), []
    for window in windows:
        alone, one = method.adapt_batch(alone, window[None])
        answers.append(one.probabilities)
    torch.testing.assert_close(torch.cat(answers), step.probabilities)
    assert one.updates == step.updates == 1
    for name, value in together.items():
        torch.testing.assert_close(alone[name], value, rtol=1e-3, atol=1e-3 if name[0] == "b" else 1e-4)


def test_updates_fall_after_each_64th_window_whatever_the_batches() -> None:
    method, state, updates = Rotta(source_for(CONV)), None, []
    for count in (60, 3, 1, 130, 61, 1):
        state, step = method.adapt_batch(state or method.reset(), shifted(CONV, count))
        updates.append(step.updates)
    assert updates == [0, 0, 1, 2, 0, 1]


def test_the_teacher_answers_from_its_stored_statistics() -> None:
    context = hand_net.source()
    method, windows = Rotta(context, memory=8), shifted(MLP, 8).double()
    state, step = method.adapt_batch(method.reset(), windows)
    with torch.no_grad():
        torch.testing.assert_close(step.probabilities, torch.softmax(context.model(windows), dim=1))
        teacher = hand_net.source().model
        teacher.load_state_dict({name: state[f"teacher/{name}"] for name in method.adapts}, strict=False)
        _, step = method.adapt_batch(state, windows[:3])
        torch.testing.assert_close(step.probabilities, torch.softmax(teacher(windows[:3]), dim=1))


@pytest.mark.parametrize("setting", [{"memory": 0}, {"statistics_rate": 2.0}, {"teacher_rate": -1.0}])
def test_settings_out_of_range_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Rotta(source_for(CONV), **setting)
