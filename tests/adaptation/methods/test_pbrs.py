"""Statistics from a balanced memory: when they move, how far, and from what."""

import numpy as np
import pytest
import torch

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.methods.pbrs import Pbrs
from acclimate.adaptation.model.spec import NetworkSpec
from tests.adaptation.methods.numpy_net import Array, axes, run, shifted, softmax, source_for
from tests.adaptation.tiny_nets import CONV, MLP, SPECS, settled


@pytest.mark.parametrize("spec", SPECS)
def test_after_each_period_statistics_move_by_the_momentum_towards_the_memory(spec: NetworkSpec) -> None:
    method, model = Pbrs(source_for(spec), capacity=8, update_every=8, momentum=0.3), settled(spec)[0]
    windows = shifted(spec, 18)
    state = method.reset()
    parts, found = torch.split(windows, [3, 5, 8, 2]), []
    running: dict[int, tuple[Array, Array]] = {}

    def as_they_run(index: int, _: Array, mean: Array, var: Array) -> tuple[Array, Array]:
        return running.get(index, (mean, var))

    def by_the_memory(index: int, x: Array, mean: Array, var: Array) -> tuple[Array, Array]:
        now = x.mean(axis=axes(x)), x.var(axis=axes(x))
        old = running.get(index, (mean, var))
        running[index] = 0.7 * old[0] + 0.3 * now[0], 0.7 * old[1] + 0.3 * now[1]
        return now

    for place, part in enumerate(parts):
        state, step = method.adapt_batch(state, part)
        found.append(step)
        np.testing.assert_allclose(step.probabilities, softmax(run(model, part, as_they_run)[0]), atol=2e-5)
        if place in (1, 2):
            run(model, state["memory/windows"], by_the_memory)
    assert [(step.updates, step.selected) for step in found] == [(0, 0), (1, 8), (1, 8), (0, 0)]
    assert int(state["since_update"]) == 2


@pytest.mark.parametrize("spec", [CONV, MLP])
def test_a_batch_across_an_update_is_cut_there(spec: NetworkSpec) -> None:
    method, windows = Pbrs(source_for(spec), capacity=6, update_every=8, momentum=0.5), shifted(spec, 30)
    whole, answer = method.adapt_batch(method.reset(), windows)
    state, singles = method.reset(), []
    for window in windows:
        state, step = method.adapt_batch(state, window[None])
        singles.append(step.probabilities)
    torch.testing.assert_close(torch.cat(singles), answer.probabilities, atol=1e-5, rtol=1e-4)
    assert torch.equal(state["memory/windows"], whole["memory/windows"])
    assert (answer.updates, answer.selected) == (3, 18)


def test_a_single_row_in_memory_has_no_statistics_and_changes_none() -> None:
    method = Pbrs(source_for(MLP), capacity=1, update_every=1, momentum=1.0)
    state, step = method.adapt_batch(method.reset(), shifted(MLP, 1))
    assert (step.updates, step.selected) == (0, 0)
    assert all(torch.equal(state[name], method.reset()[name]) for name in method.adapts)


def test_state_alone_continues_a_device_bit_for_bit() -> None:
    windows = shifted(CONV, 40)
    one, other = (Pbrs(source_for(CONV, seed=3), capacity=6, update_every=8) for _ in range(2))
    state, _ = one.adapt_batch(one.reset(), windows[:20])
    copied = {name: value.clone() for name, value in state.items()}
    expected, _ = one.adapt_batch(state, windows[20:])
    found, _ = other.adapt_batch(copied, windows[20:])
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"capacity": 0}, "capacity"), ({"update_every": 0}, "update_every"), ({"momentum": 2.0}, "momentum")],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Pbrs(source_for(CONV), **settings)  # type: ignore[arg-type]
