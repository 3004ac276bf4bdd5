"""The BatchNorm gap: against float64 arithmetic, near 0 on the source, larger for larger faults."""

import numpy as np
import pytest
import torch

from adaptation.drift.bn_gap import BnGap, bn_gap
from adaptation.errors import ConfigError, DataError
from adaptation.model.batch_norms import at_batch_norms, batch_norms
from adaptation.model.network import Network
from adaptation.model.spec import NetworkSpec
from tests.adaptation.tiny_nets import CONV, MLP, SPECS, settled, windows_for


def gap_by_hand(x: np.ndarray, mean0: np.ndarray, var0: np.ndarray) -> float:
    axes = (0, 2) if x.ndim == 3 else (0,)
    mean, std = x.mean(axis=axes), np.sqrt(x.var(axis=axes) + 1e-5)
    std0 = np.sqrt(var0 + 1e-5)
    return float(np.mean(((mean - mean0) ** 2 + (std - std0) ** 2) / std0**2))


@pytest.mark.parametrize("spec", SPECS)
def test_on_the_frozen_pass_every_layer_is_what_float64_arithmetic_gives(spec: NetworkSpec) -> None:
    model, _ = settled(spec)
    windows = torch.from_numpy(windows_for(spec, 40, seed=5))
    expected = []

    def see(_index: int, norm: torch.nn.Module, x: torch.Tensor) -> None:
        mean0, var0 = (tensor.double().numpy() for tensor in (norm.running_mean, norm.running_var))
        expected.append(gap_by_hand(x.double().numpy(), mean0, var0))

    with torch.no_grad(), at_batch_norms(batch_norms(model), see):
        model(windows)
    found = bn_gap(Network(model), windows, refreshed=False)
    np.testing.assert_allclose(found.layers, expected, rtol=1e-4)
    assert found.floor == 1.5 / 40


def test_in_the_refreshed_pass_a_layer_sees_what_the_batch_normalised() -> None:
    model, _ = settled(CONV)
    windows = torch.from_numpy(windows_for(CONV, 40, seed=5)) * 3
    inputs = []
    norms = batch_norms(model)

    def see(index: int, norm: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        inputs.append(x.double().numpy())
        return torch.nn.functional.batch_norm(x, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)

    with torch.no_grad(), at_batch_norms(norms, see):
        model(windows)
    expected = [
        gap_by_hand(x, norm.running_mean.double().numpy(), norm.running_var.double().numpy())
        for x, norm in zip(inputs, norms, strict=True)
    ]
    np.testing.assert_allclose(bn_gap(Network(model), windows).layers, expected, rtol=1e-4)


def test_the_level_is_the_median_layer_above_the_floor() -> None:
    assert BnGap((0.5, 0.1, 0.3), floor=0.05).level == pytest.approx(0.25)


def test_batches_of_the_source_itself_have_a_level_near_zero() -> None:
    model, _ = settled(MLP)
    network = Network(model)
    rng = np.random.default_rng(0)
    source = torch.from_numpy(windows_for(MLP, 200, seed=1))  # what the statistics were settled on
    batches = [source[torch.from_numpy(rng.integers(200, size=40))] for _ in range(100)]
    levels = [bn_gap(network, batch, refreshed=False).level for batch in batches]
    assert abs(np.mean(levels)) < 0.5 * 1.5 / 40


@pytest.mark.parametrize("refreshed", [True, False])
def test_a_larger_fault_has_a_larger_gap_and_order_does_not_matter(refreshed: bool) -> None:
    model, _ = settled(CONV)
    network = Network(model)
    windows = torch.from_numpy(windows_for(CONV, 60, seed=5))
    for fault in (lambda x, size: x + size, lambda x, size: x * (1 + size)):
        first = [bn_gap(network, fault(windows, size), refreshed=refreshed).layers[0] for size in (0.0, 1.0, 2.0, 4.0)]
        assert first == sorted(first)
    forward = bn_gap(network, windows, refreshed=refreshed).layers
    np.testing.assert_allclose(bn_gap(network, windows.flip(0), refreshed=refreshed).layers, forward, rtol=1e-5)


@pytest.mark.parametrize("spec", SPECS)
def test_one_window_and_constant_windows_have_a_finite_gap(spec: NetworkSpec) -> None:
    network = Network(settled(spec)[0])
    one = torch.from_numpy(windows_for(spec, 1, seed=5))
    for windows in (one, torch.zeros_like(one), torch.full((9, *one.shape[1:]), 3.0)):
        assert np.isfinite(bn_gap(network, windows).level)


def test_dependent_windows_have_a_higher_floor() -> None:
    network = Network(settled(CONV)[0])
    windows = torch.from_numpy(windows_for(CONV, 60, seed=5))
    assert bn_gap(network, windows, effective=6.0).floor == pytest.approx(0.25)


def test_nan_and_impossible_settings_are_refused_and_nothing_random_is_touched() -> None:
    network = Network(settled(CONV)[0])
    windows = torch.from_numpy(windows_for(CONV, 4, seed=5))
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    bn_gap(network, windows)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    with pytest.raises(ConfigError, match="above 0"):
        bn_gap(network, windows, effective=0.0)
    with pytest.raises(DataError, match="at least one window"):
        bn_gap(network, windows[:0])
    windows[2, 1, 3] = torch.nan
    with pytest.raises(DataError, match="finite"):
        bn_gap(network, windows)
