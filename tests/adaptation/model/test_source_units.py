"""Source units: what the network sees inside, for its own kind and for foreign networks."""

import numpy as np
import pytest
import torch
from torch import nn

from acclimate.adaptation.method import SourceContext
from acclimate.adaptation.model.source_units import SourceUnits
from acclimate.adaptation.model.spec import NetworkSpec
from tests.adaptation.methods.numpy_net import source_for
from tests.adaptation.tiny_nets import SPECS, windows_for


@pytest.mark.parametrize("spec", SPECS)
def test_units_are_what_the_network_s_first_layer_sees(spec: NetworkSpec) -> None:
    context = source_for(spec)
    windows = torch.from_numpy(windows_for(spec, 5) * 30)
    inside = context.model.get_submodule("scaling")(windows)
    torch.testing.assert_close(SourceUnits(context).to_units(windows), inside)


@pytest.mark.parametrize("spec", SPECS)
def test_there_and_back_is_the_window(spec: NetworkSpec) -> None:
    units = SourceUnits(source_for(spec))
    windows = torch.from_numpy(windows_for(spec, 5) * 30)
    torch.testing.assert_close(units.to_raw(units.to_units(windows)), windows, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("spec", SPECS)
def test_the_largest_finite_windows_stay_finite(spec: NetworkSpec) -> None:
    units = SourceUnits(source_for(spec))
    for value in (3e38, -3e38):
        there = units.to_units(torch.full((1, spec.channels, spec.length), value))
        assert there.abs().max() <= 1e4
        assert torch.isfinite(units.to_raw(2 * there)).all()


def test_a_foreign_network_gets_mean_and_deviation_of_the_source_windows() -> None:
    rng = np.random.default_rng(0)
    windows = torch.from_numpy(rng.normal(3.0, 2.0, size=(40, 2, 6, 7)))
    windows[:, 1] = 5.0  # a channel that never moves
    units = SourceUnits(SourceContext(nn.Identity(), windows, torch.zeros(40)))
    numbers = windows.numpy()
    np.testing.assert_allclose(units.mean, numbers.mean(axis=(0, 2, 3)))
    np.testing.assert_allclose(units.std, [numbers[:, 0].std(), 1.0])
    expected = (numbers[:, 0] - numbers[:, 0].mean()) / numbers[:, 0].std()
    np.testing.assert_allclose(units.to_units(windows)[:, 0], expected)
