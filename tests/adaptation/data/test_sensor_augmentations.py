"""Sensor augmentations: strength, independence of windows, and what they leave alone."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from acclimate.adaptation.data.sensor_augmentations import augmented, jitter, magnitude_warp, scaling, time_shift

Change = Callable[[Tensor, torch.Generator], Tensor]
ALL: tuple[Change, ...] = (jitter, scaling, time_shift, magnitude_warp, augmented)
SHAPES = ((4, 3, 50), (4, 3, 1), (4, 3), (4, 3, 6, 50))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("change", ALL)
@pytest.mark.parametrize("shape", SHAPES)
def test_shape_and_type_stay_the_seed_decides_and_nothing_is_written(change: Change, shape: tuple[int, ...]) -> None:
    units = torch.randn(shape, generator=generator(1), dtype=torch.float64)
    before, drawn = units.clone(), torch.get_rng_state()
    out = change(units, generator())
    assert (out.shape, out.dtype) == (units.shape, units.dtype)
    assert torch.equal(units, before)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert torch.equal(out, change(units, generator()))


def test_jitter_has_its_deviation_and_no_mean() -> None:
    noise = jitter(torch.zeros(200, 3, 50), generator())
    assert float(noise.std()) == pytest.approx(0.05, rel=0.02)
    assert abs(float(noise.mean())) < 0.002


def test_scaling_is_one_gain_per_channel_of_a_window() -> None:
    gains = scaling(torch.ones(2000, 3, 5), generator())
    assert torch.equal(gains, gains[:, :, :1].expand_as(gains))
    assert float(gains[:, 0, 0].mean()) == pytest.approx(1.0, abs=0.01)
    assert float(gains.std()) == pytest.approx(0.1, rel=0.05)


def test_a_shift_moves_all_channels_alike_by_at_most_a_twentieth_and_repeats_the_edge() -> None:
    ramp = torch.arange(100.0).repeat(300, 2, 1)
    moved = time_shift(ramp, generator())
    lags = 50.0 - moved[:, :, 50]
    assert torch.equal(lags[:, 0], lags[:, 1])
    assert set(lags[:, 0].int().tolist()) == set(range(-5, 6))
    expected = (torch.arange(100.0) - lags[:, :, None]).clamp(0, 99)
    assert torch.equal(moved, expected)


def test_a_warp_is_smooth_around_one_and_passes_through_its_knots() -> None:
    curves = magnitude_warp(torch.ones(2000, 1, 100), generator())
    knots = 1 + 0.1 * torch.randn(2000, 1, 1, 4, generator=generator())
    torch.testing.assert_close(curves[:, :, [0, 33, 66, 99]], knots[:, :, 0])
    assert float(curves.mean()) == pytest.approx(1.0, abs=0.01)
    assert float(curves.diff(dim=2).abs().max()) < 0.05
    assert float(curves.diff(dim=2).abs().sum(dim=2).min()) > 0


def test_windows_draw_for_themselves() -> None:
    for change in ALL[:2] + ALL[3:]:
        out = change(torch.ones(2, 3, 50), generator())
        assert not torch.allclose(out[0], out[1])


def test_rows_without_time_are_not_shifted() -> None:
    rows = torch.randn(5, 3, 1, generator=generator())
    assert torch.equal(time_shift(rows, generator()), rows)
    assert torch.equal(time_shift(rows[:, :, 0], generator()), rows[:, :, 0])
