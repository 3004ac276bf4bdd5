"""The simulated fleet: repeatable, with the declared physics in its spectra and the declared shifts in its devices."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from acclimate.adaptation.data.simulate import (
    CONDITIONS,
    DOMINANT_SHIFTS,
    LENGTH,
    SAMPLING_RATE_HZ,
    DeviceShift,
    FleetPlan,
    device_shifts,
    simulate_fleet,
)
from acclimate.adaptation.errors import ConfigError

SMALL = FleetPlan(source_devices=2, target_devices=8, source_windows=200, target_windows=100)


def spectrum(windows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Mean power of windows (n, L) by frequency, window mean removed; 12.5 Hz a bin."""
    tapered = (windows - windows.mean(axis=1, keepdims=True)) * np.hanning(LENGTH)
    return np.asarray((np.abs(np.fft.rfft(tapered.astype(np.float64), axis=1)) ** 2).mean(axis=0))


def bin_of(frequency_hz: float) -> int:
    return round(frequency_hz * LENGTH / SAMPLING_RATE_HZ)


def test_equal_seeds_give_equal_bytes_and_other_seeds_do_not() -> None:
    first, again, other = simulate_fleet(3, SMALL), simulate_fleet(3, SMALL), simulate_fleet(4, SMALL)
    assert first.source.windows.tobytes() == again.source.windows.tobytes()
    assert first.target is not None
    assert again.target is not None
    assert first.target.windows.tobytes() == again.target.windows.tobytes()
    assert first.source.windows.tobytes() != other.source.windows.tobytes()
    assert device_shifts(3, SMALL) == device_shifts(3, SMALL)


def test_adding_devices_leaves_the_source_as_it_is() -> None:
    few = simulate_fleet(0, replace(SMALL, target_devices=0))
    many = simulate_fleet(0, SMALL)
    assert few.target is None
    np.testing.assert_array_equal(few.source.windows, many.source.windows)


def test_every_device_shows_every_condition_in_long_stretches() -> None:
    data = simulate_fleet(0, FleetPlan(source_devices=2, target_devices=2))
    assert data.target is not None
    for split in (data.source, data.target):
        assert split.windows.dtype == np.float32
        assert np.isfinite(split.windows).all()
        for _, part in split.streams():
            labels = split.labels[part]
            assert np.unique(labels).tolist() == list(range(len(CONDITIONS)))
            assert np.count_nonzero(np.diff(labels)) == 9
    assert np.intersect1d(data.source.rows, data.target.rows).size == 0


def test_conditions_have_the_signatures_that_are_declared() -> None:
    plan = FleetPlan(source_devices=1, target_devices=0, source_windows=2000)
    data, (shift,) = simulate_fleet(1, plan), device_shifts(1, plan)
    level = {
        name: [spectrum(data.source.windows[data.source.labels == index, axis]) for axis in range(3)]
        for index, name in enumerate(CONDITIONS)
    }
    once, twice = bin_of(shift.shaft_hz), bin_of(2 * shift.shaft_hz)
    assert np.argmax(level["imbalance"][0]) == once
    assert np.argmax(level["misalignment"][2]) == twice
    assert level["misalignment"][2][twice] > 10 * level["imbalance"][2][twice]
    half_orders = [bin_of(order * shift.shaft_hz) for order in (1.5, 2.5)]
    assert all(level["looseness"][1][place] > 4 * level["normal"][1][place] for place in half_orders)
    around = slice(bin_of(shift.resonance_hz) - 4, bin_of(shift.resonance_hz) + 5)
    for bearing in ("outer_race", "inner_race"):
        assert level[bearing][1][around].sum() > 4 * level["normal"][1][around].sum()


def test_each_target_has_its_declared_dominant_shift_and_the_control_has_none() -> None:
    shifts = device_shifts(0, SMALL)
    assert [shift.dominant for shift in shifts] == ["none", "none", *DOMINANT_SHIFTS]
    by_kind = {shift.dominant: shift for shift in shifts[2:]}

    def strong(shift: DeviceShift) -> set[str]:
        found = {
            "gain": abs(np.log(np.mean(shift.gain))) > 0.5,
            "offset": max(np.abs(shift.offset_g)) > 0.15,
            "rotation": shift.rotation_deg > 30,
            "noise": shift.noise_g > 0.1,
            "clock": abs(shift.clock_error) > 0.03,
            "ageing": abs(shift.ageing_gain) > 0.3,
        }
        return {name for name, is_strong in found.items() if is_strong}

    assert strong(by_kind["none"]) == set()
    assert strong(by_kind["remounting"]) == {"gain", "offset"}
    for kind in ("gain", "offset", "rotation", "noise", "clock", "ageing"):
        assert strong(by_kind[kind]) == {kind}


def test_strength_zero_leaves_no_dominant_shift() -> None:
    calm = device_shifts(0, replace(SMALL, strength=0.0))
    assert {shift.dominant for shift in calm} == {"none"}
    assert max(abs(shift.clock_error) for shift in calm) < 0.03
    assert max(abs(np.log(gain)) for shift in calm for gain in shift.gain) < 0.3


def test_gravity_offset_and_gain_are_what_window_means_show() -> None:
    data, shifts = simulate_fleet(0, SMALL), {shift.device: shift for shift in device_shifts(0, SMALL)}
    assert data.target is not None
    for name, part in data.target.streams():
        shift = shifts[name]
        x, y, z = shift.rotation_axis
        angle = np.deg2rad(shift.rotation_deg)
        down = np.array([0.0, -1.0, 0.0])
        axis = np.array([x, y, z])
        turned = (
            down * np.cos(angle) + np.cross(axis, down) * np.sin(angle) + axis * (axis @ down) * (1 - np.cos(angle))
        )
        expected = np.array(shift.gain) * (1 + shift.ageing_gain / 2) * turned
        expected += np.array(shift.offset_g) + shift.ageing_offset_g / 2
        found = data.target.windows[part].astype(np.float64).mean(axis=(0, 2))
        np.testing.assert_allclose(found, expected, atol=0.03)


@pytest.mark.parametrize(
    "sizes", [{"source_devices": 0}, {"target_devices": -1}, {"source_windows": 10}, {"strength": -1.0}]
)
def test_an_impossible_plan_is_refused(sizes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        FleetPlan(**sizes)
