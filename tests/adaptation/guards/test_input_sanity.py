"""Input sanity: each defect is refused for its own reason, and what the source does itself is not a defect."""

import math

import pytest
import torch
from torch import Tensor

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.guards.input_sanity import InputSanity
from acclimate.adaptation.method import SourceContext
from tests.adaptation.tiny_nets import CONV, MLP, settled, windows_for


def context(windows: Tensor | None = None) -> SourceContext:
    windows = torch.from_numpy(windows_for(CONV, 80)) if windows is None else windows
    return SourceContext(settled(CONV)[0], windows, torch.arange(len(windows)) % 4)


def a_window() -> Tensor:
    return torch.from_numpy(windows_for(CONV, 1, seed=9))


def test_other_source_windows_are_sane() -> None:
    found = InputSanity(context()).check(torch.from_numpy(windows_for(CONV, 50, seed=3)))
    assert found.sane.all()
    assert found.reasons == ((),) * 50


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_single_sample_that_is_not_finite_refuses_its_window_alone(value: float) -> None:
    windows = torch.cat((a_window(), a_window()))
    windows[1, 2, 7] = value
    found = InputSanity(context()).check(windows)
    assert found.reasons == ((), ("not_finite",))
    assert found.not_finite.tolist() == [0, 1 / 60]


def test_missing_samples_within_the_allowed_share_pass() -> None:
    windows = a_window()
    windows[0, 0, :3] = math.nan  # 3 of 60
    assert InputSanity(context(), not_finite_share=0.05).check(windows).sane.all()
    assert not InputSanity(context(), not_finite_share=0.04).check(windows).sane.any()


def test_a_gain_of_ten_thousand_is_out_of_range_and_a_spike_or_a_gain_of_five_is_not() -> None:
    sanity = InputSanity(context())
    assert sanity.check(a_window() * 1e4).reasons == (("out_of_range",),)
    spike = a_window()
    spike[0, 1, 4] = 1e9
    assert sanity.check(spike).sane.all()
    assert sanity.check(a_window() * 5).sane.all()


def test_a_flat_channel_is_refused_unless_the_source_has_flat_windows_there() -> None:
    stuck = a_window()
    stuck[0, 1] = 0.3
    found = InputSanity(context()).check(stuck)
    assert found.reasons == (("flat_line",),)
    assert found.flat_line.tolist() == pytest.approx([1 / 3])
    idle = torch.from_numpy(windows_for(CONV, 80))
    idle[::10, 1] = 0.3
    assert InputSanity(context(idle)).check(stuck).sane.all()
    assert InputSanity(context(), flat_share=0.4).check(stuck).sane.all()


def test_a_channel_that_is_all_missing_is_missing_and_not_flat() -> None:
    gone = a_window()
    gone[0, 0] = math.nan
    assert InputSanity(context()).check(gone).reasons == (("not_finite",),)


def test_a_constant_window_is_flat_and_rows_without_a_time_axis_never_are() -> None:
    assert InputSanity(context()).check(torch.zeros(1, 3, 20)).reasons == (("flat_line",),)
    rows = torch.from_numpy(windows_for(MLP, 40))
    sanity = InputSanity(SourceContext(settled(MLP)[0], rows, torch.arange(40) % 3))
    assert sanity.check(rows.mean(dim=0, keepdim=True)).sane.all()


def test_missing_samples_are_filled_with_the_source_s_channel_mean_and_the_rest_is_untouched() -> None:
    windows = a_window()
    before = windows.clone()
    windows[0, 1, 3] = math.nan
    given = windows.clone()
    filled = InputSanity(context()).fill(windows)
    expected = windows_for(CONV, 80)[:, 1].astype("float64").mean()
    assert filled[0, 1, 3].item() == pytest.approx(expected, abs=1e-6)
    filled[0, 1, 3] = before[0, 1, 3]
    assert torch.equal(filled, before)
    assert torch.equal(windows.isnan(), given.isnan())


@pytest.mark.parametrize(
    "settings", [{"range_stds": 0.0}, {"range_stds": 1e5}, {"flat_share": -0.1}, {"out_of_range_share": 1.5}]
)
def test_settings_out_of_range_are_errors(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        InputSanity(context(), **settings)
