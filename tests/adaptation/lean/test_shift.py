"""The shift magnitude: against float64 arithmetic, calibrated, and blind to nothing it claims to see."""

import numpy as np
import pytest
import torch

from acclimate.adaptation.errors import DataError
from acclimate.adaptation.lean.shift import calibrate, measure
from acclimate.adaptation.model.nets import to_tensors
from acclimate.adaptation.model.spec import NetworkSpec
from tests.adaptation.tiny_nets import CONV, MLP, SPECS, settled, tones, trained_on_tones, windows_for


def test_the_first_layer_s_shift_is_what_float64_arithmetic_gives() -> None:
    model, calibration = settled(CONV)
    windows = windows_for(CONV, 30, seed=5)
    training = windows_for(CONV, 200, seed=1)[:120]
    t = {name: value.astype(np.float64) for name, value in to_tensors(model).items()}

    def mean_and_variance(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x = (batch.astype(np.float64) - t["scaling.mean"][:, None]) / t["scaling.std"][:, None]
        views = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (0, 0), (2, 2))), 5, axis=2)
        h = np.einsum("nctk,ock->not", views, t["blocks.0.map.weight"])
        return h.mean(axis=2), h.var(axis=2)

    mean, var = mean_and_variance(windows)
    source_mean, source_var = t["blocks.0.norm.running_mean"], t["blocks.0.norm.running_var"]
    distance = ((mean - source_mean) ** 2 / (source_var + 1e-5)).mean(axis=1)
    logs = np.log(mean_and_variance(training)[1] + 1e-5)
    deviation = ((np.log(var + 1e-5) - logs.mean(axis=0)) ** 2 / logs.var(axis=0)).mean(axis=1)
    found = measure(model, windows, calibration)
    np.testing.assert_allclose(found.shift_mean[:, 0] * calibration.layer_mean_quantile[0], distance, rtol=1e-4)
    np.testing.assert_allclose(
        found.shift_variance[:, 0] * calibration.layer_variance_quantile[0], deviation, rtol=1e-4
    )


@pytest.mark.parametrize("spec", SPECS)
def test_parts_are_means_over_layers_and_the_magnitude_is_the_larger_part(spec: NetworkSpec) -> None:
    model, calibration = settled(spec)
    found = measure(model, windows_for(spec, 30, seed=5) * 3, calibration)
    mean = (found.shift_mean * calibration.layer_mean_quantile).mean(axis=1) / calibration.mean_quantile
    variance = (found.shift_variance * calibration.layer_variance_quantile).mean(axis=1) / calibration.variance_quantile
    np.testing.assert_allclose(found.mean_part, mean, rtol=1e-5)
    np.testing.assert_allclose(found.variance_part, variance, rtol=1e-5)
    np.testing.assert_array_equal(found.magnitude, np.maximum(found.mean_part, found.variance_part))


@pytest.mark.parametrize("spec", SPECS)
def test_one_in_a_hundred_held_out_source_windows_reaches_one(spec: NetworkSpec) -> None:
    model, _ = settled(spec)
    held_out = windows_for(spec, 500, seed=8)
    found = measure(model, held_out, calibrate(model, windows_for(spec, 200, seed=1), held_out))
    parts = [found.mean_part, *found.shift_mean.T]
    if spec.adaptable:
        parts += [found.variance_part, *found.shift_variance.T]
    assert [int((part > 1).sum()) for part in parts] == [5] * len(parts)


def test_a_gain_of_0_3_that_ruins_the_model_is_seen_by_the_variance_part_and_not_by_the_mean_part() -> None:
    model, calibration = trained_on_tones()
    windows, labels = tones(300, seed=4)

    def accuracy(batch: np.ndarray) -> float:
        return float((model(torch.from_numpy(batch)).argmax(dim=1).numpy() == labels).mean())

    quiet = (windows * 0.3).astype(np.float32)
    found = measure(model, quiet, calibration)
    assert accuracy(windows) > 0.9
    assert accuracy(quiet) < accuracy(windows) - 0.15
    assert np.median(found.variance_part) > 1.5
    assert np.median(found.mean_part) < 1.0
    assert (found.mean_part > 1).mean() < 0.1


def test_the_magnitude_has_no_cap_and_grows_with_an_offset() -> None:
    model, calibration = trained_on_tones()
    windows, _ = tones(20, seed=4)
    medians = [
        np.median(measure(model, windows + np.float32(offset), calibration).magnitude) for offset in (0, 1, 10, 100)
    ]
    assert medians == sorted(medians)
    assert medians[-1] > 1000


def test_a_window_is_measured_the_same_whatever_its_neighbours() -> None:
    model, calibration = settled(CONV)
    windows = windows_for(CONV, 300, seed=6)
    whole = measure(model, windows, calibration).magnitude
    singles = [measure(model, windows[i : i + 1], calibration).magnitude[0] for i in range(0, 300, 37)]
    np.testing.assert_allclose(whole[::37], singles, rtol=1e-5)


def test_rows_without_a_time_axis_have_a_mean_part_alone() -> None:
    model, calibration = settled(MLP)
    found = measure(model, windows_for(MLP, 20) + np.float32(100), calibration)
    assert not found.variance_part.any()
    assert not found.shift_variance.any()
    assert found.magnitude.min() > 1


def test_channels_that_never_vary_do_not_drown_the_rest() -> None:
    model, _ = settled(CONV)
    still = np.zeros((50, CONV.channels, CONV.length), np.float32)
    calibration = calibrate(model, still, still)
    assert all((spread == np.float32(0.01)).all() for spread in calibration.log_variance_variance)
    found = measure(model, windows_for(CONV, 5), calibration)
    assert np.isfinite(found.magnitude).all()


@pytest.mark.parametrize("empty", ["training", "held-out"])
def test_calibration_without_windows_is_refused(empty: str) -> None:
    model, _ = settled(CONV)
    some, none = windows_for(CONV, 5), windows_for(CONV, 0)
    with pytest.raises(DataError, match=f"one {empty} source window"):
        calibrate(model, none if empty == "training" else some, none if empty == "held-out" else some)
