"""Device-lifetime statistics, against float64 sums over every window of the device."""

import numpy as np
import pytest
import torch

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.methods.cum_bn import CumBatchNorm
from acclimate.adaptation.methods.layer_choice import first_half
from acclimate.adaptation.model.spec import NetworkSpec
from tests.adaptation.methods.numpy_net import Array, axes, run, shifted, softmax, source_for
from tests.adaptation.tiny_nets import CONV, ODD, SPECS, settled


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("layers", ["all", "first half"])
def test_every_window_of_the_device_and_every_pseudo_window_count_the_same(spec: NetworkSpec, layers: str) -> None:
    flags = None if layers == "all" else first_half(spec.layers)
    method, model = CumBatchNorm(source_for(spec), pseudo_windows=10, layers=flags), settled(spec)[0]
    state = method.reset()
    sums: dict[int, tuple[float, Array, Array]] = {}  # windows, sum of means and of mean squares per layer

    def rule(index: int, x: Array, mean: Array, var: Array) -> tuple[Array, Array]:
        if flags is not None and not flags[index]:
            return mean, var
        count, first, second = sums.get(index, (10.0, 10 * mean, 10 * (var + mean**2)))
        count += len(x)
        first = first + len(x) * x.mean(axis=axes(x))
        second = second + len(x) * (x**2).mean(axis=axes(x))
        sums[index] = count, first, second
        return first / count, second / count - (first / count) ** 2

    for part in torch.split(shifted(spec, 20), [1, 1, 12, 6]):
        state, step = method.adapt_batch(state, part)
        np.testing.assert_allclose(step.probabilities, softmax(run(model, part, rule)[0]), atol=2e-5)
    assert int(state["windows"]) == 20
    assert len(sums) == (spec.layers if flags is None else sum(flags))
    for index, (count, first, second) in sums.items():
        mean, var = first / count, second / count - (first / count) ** 2
        np.testing.assert_allclose(state[f"blocks.{index}.norm.running_mean"], mean, atol=1e-4)
        np.testing.assert_allclose(state[f"blocks.{index}.norm.running_var"], var, rtol=1e-4, atol=1e-4)


def test_state_and_adapted_names_hold_the_selected_layers_alone() -> None:
    method = CumBatchNorm(source_for(ODD), layers=(False, True, False))
    assert method.adapts == ("blocks.1.norm.running_mean", "blocks.1.norm.running_var")
    assert set(method.reset()) == {"windows", *method.adapts}


def test_a_young_device_is_answered_almost_by_the_source() -> None:
    windows = shifted(CONV, 4)
    step = (method := CumBatchNorm(source_for(CONV), pseudo_windows=1e9)).adapt_batch(method.reset(), windows)[1]
    torch.testing.assert_close(step.probabilities, torch.softmax(settled(CONV)[0](windows), dim=1))


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="pseudo_windows"):
        CumBatchNorm(source_for(CONV), pseudo_windows=0)
    with pytest.raises(ConfigError, match="every flag is off"):
        CumBatchNorm(source_for(CONV), layers=(False, False))
