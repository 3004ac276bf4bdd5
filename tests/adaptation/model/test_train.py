"""Training: repeatable, measured on what was held out, returned from all windows, clear about unfit data."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from acclimate.adaptation.data.augment import Augmentation
from acclimate.adaptation.data.load import load
from acclimate.adaptation.data.simulate import FleetPlan, simulate_fleet
from acclimate.adaptation.errors import ConfigError, DataError
from acclimate.adaptation.lean.shift import calibrate, calibrate_trained, measure
from acclimate.adaptation.model.nets import to_tensors
from acclimate.adaptation.model.spec import NetworkSpec
from acclimate.adaptation.model.train import default_spec, fit, hold_out, predict, train_source

TINY = NetworkSpec("conv1d", channels=2, length=16, classes=3, widths=(8, 8), kernels=(5, 3))


def waves(devices: int = 5, each: int = 60) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.str_]]:
    """Three frequencies in noise, with class counts 5:3:2, from devices of slightly different gain."""
    rng = np.random.default_rng(0)
    labels = np.tile(np.repeat([0, 1, 2], [each // 2, each * 3 // 10, each // 5]), devices).astype(np.int64)
    groups = np.repeat(np.array([f"d{number}" for number in range(devices)]), each)
    angle = 2 * np.pi * (labels + 1)[:, None] * np.arange(16) / 16 + rng.uniform(0, 6.28, size=(labels.size, 1))
    windows = np.stack([np.sin(angle), np.cos(angle)], axis=1) + rng.normal(0, 0.2, size=(labels.size, 2, 16))
    gain = np.repeat(rng.uniform(0.9, 1.1, size=devices), each)
    return (gain[:, None, None] * windows * 7 + 100).astype(np.float32), labels, groups


def test_equal_seeds_give_equal_weights_bit_for_bit_and_leave_the_callers_random_state_alone() -> None:
    windows, labels, groups = waves()
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    first = train_source(windows, labels, groups, TINY, seed=1, epochs=2)
    assert torch.equal(torch.rand(3), expected)
    again = train_source(windows, labels, groups, TINY, seed=1, epochs=2)
    other = train_source(windows, labels, groups, TINY, seed=2, epochs=2)
    one, two, three = (to_tensors(trained.model) for trained in (first, again, other))
    assert all(one[name].tobytes() == two[name].tobytes() for name in one)
    assert any(one[name].tobytes() != three[name].tobytes() for name in one)


def test_a_learnable_source_is_learned_and_the_report_matches_the_model() -> None:
    windows, labels, groups = waves()
    calls: list[tuple[int, int, float, float]] = []
    trained = train_source(windows, labels, groups, TINY, 0, 12, lambda *call: calls.append(call))
    assert trained.accuracy > 0.9
    assert [call[:2] for call in calls] == [(epoch, 24) for epoch in range(1, 25)]
    assert [call[2] for call in calls[12:]] == list(trained.losses)
    assert {call[3] for call in calls[12:]} == {trained.accuracy}  # the second fit has nothing to be measured on
    answers = predict(trained.measured_model, windows[trained.held_out]).argmax(axis=1)
    truth = labels[trained.held_out]
    assert trained.accuracy == pytest.approx((answers == truth).mean())
    assert trained.recalls == pytest.approx([(answers[truth == label] == label).mean() for label in range(3)])
    assert not trained.model.training


def test_with_five_groups_whole_groups_are_held_out_and_never_trained_on() -> None:
    windows, labels, groups = waves()
    mask, names = hold_out(labels, groups, seed=0)
    assert len(names) == 1
    np.testing.assert_array_equal(mask, groups == names[0])
    assert len({hold_out(labels, groups, seed)[1] for seed in range(20)}) > 1
    broken = windows.copy()
    broken[mask] = 1e6  # would move the scaling constants if it were looked at
    trained = train_source(broken, labels, groups, TINY, seed=0, epochs=1)
    for model, rows in ((trained.measured_model, ~mask), (trained.model, mask | True)):
        kept = broken[rows].astype(np.float64)
        np.testing.assert_allclose(model.scaling.mean.numpy(), kept.mean(axis=(0, 2)), rtol=1e-6)
        np.testing.assert_allclose(model.scaling.std.numpy(), kept.std(axis=(0, 2)), rtol=1e-6)


def test_the_first_fit_is_the_whole_training_without_a_second_one_and_the_second_is_a_fit_to_everything() -> None:
    windows, labels, groups = waves()
    both = train_source(windows, labels, groups, TINY, seed=3, epochs=2)
    one = train_source(windows, labels, groups, TINY, seed=3, epochs=2, refit=False)
    everything = fit(windows, labels, TINY, seed=3, epochs=2)
    assert both.refitted
    assert not one.refitted
    assert (both.accuracy, both.recalls) == (one.accuracy, one.recalls)
    for got, expected in ((both.measured_model, one.model), (both.model, everything.model)):
        tensors, others = to_tensors(got), to_tensors(expected)
        assert all(tensors[name].tobytes() == others[name].tobytes() for name in tensors)


def test_the_shift_is_calibrated_on_windows_that_the_measured_model_never_saw() -> None:
    windows, labels, groups = waves()
    trained = train_source(windows, labels, groups, TINY, seed=0, epochs=2)
    calibration = calibrate_trained(trained, windows)
    held_out = windows[trained.held_out]
    of_measured = calibrate(trained.measured_model, windows[~trained.held_out], held_out)
    magnitude = measure(trained.measured_model, held_out, of_measured)
    assert calibration.mean_quantile == of_measured.mean_quantile
    assert np.quantile(magnitude.mean_part, 0.99) == pytest.approx(1.0, rel=1e-4)
    with torch.no_grad():  # centres: of the returned model, over every window
        first = trained.model.blocks[0].get_submodule("map")(trained.model.scaling(torch.from_numpy(windows))).double()
    logs = np.log(first.var(dim=2, unbiased=False).numpy() + 1e-5)
    np.testing.assert_allclose(calibration.log_variance_mean[0], logs.mean(axis=0), rtol=1e-3, atol=1e-3)
    single = train_source(windows, labels, groups, TINY, seed=0, epochs=2, refit=False)
    np.testing.assert_array_equal(
        calibrate_trained(single, windows).log_variance_mean[0], of_measured.log_variance_mean[0]
    )


def test_an_augmented_training_is_repeatable_differs_and_leaves_no_augmentation_in_the_model() -> None:
    windows, labels, groups = waves()
    recipe = Augmentation(("gain", "offset", "noise"), 1.0)
    first, again = (train_source(windows, labels, groups, TINY, 1, 1, None, recipe) for _ in range(2))
    plain = train_source(windows, labels, groups, TINY, 1, 1)
    one, two, three = (to_tensors(trained.model) for trained in (first, again, plain))
    assert all(one[name].tobytes() == two[name].tobytes() for name in one)
    assert any(one[name].tobytes() != three[name].tobytes() for name in one)
    assert one["scaling.std"].tobytes() == three["scaling.std"].tobytes()
    assert first.augmentation == recipe
    np.testing.assert_array_equal(predict(first.model, windows), predict(first.model, windows))


def test_a_robust_source_stands_a_gain_and_an_offset_that_break_the_plain_one() -> None:
    windows, labels, _ = waves()
    rng = np.random.default_rng(5)
    centre = windows.mean(axis=(0, 2), keepdims=True)
    gain = np.exp(0.6 * rng.standard_normal((len(windows), 2, 1)))
    offset = 5.0 * rng.standard_normal((len(windows), 2, 1))
    shifted = (centre + gain * (windows - centre) + offset).astype(np.float32)
    recipe = Augmentation(("gain", "offset"), 2.0)
    robust = fit(windows, labels, TINY, 0, 12, recipe).model
    plain = fit(windows, labels, TINY, 0, 12).model
    hits = [(predict(model, shifted).argmax(axis=1) == labels).mean() for model in (plain, robust)]
    assert hits[1] > hits[0] + 0.05


def test_rotation_is_refused_before_training_where_channels_are_no_axes() -> None:
    with pytest.raises(ConfigError, match="2 channels are none"):
        train_source(*waves(), TINY, seed=0, epochs=1, augmentation=Augmentation(("rotation",)))


def test_groups_that_alone_show_a_class_are_not_held_out() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    groups = np.array(["a", "b", "c", "d", "e", "e", "e", "e"])
    assert all(hold_out(labels, groups, seed)[1] != ("e",) for seed in range(30))


def test_with_few_groups_the_end_of_every_groups_classes_is_held_out() -> None:
    labels = np.array([0] * 10 + [1] * 5 + [0] * 10 + [1] * 1)
    groups = np.array(["a"] * 15 + ["b"] * 11)
    mask, names = hold_out(labels, groups, seed=0)
    assert names == ()
    assert np.flatnonzero(mask).tolist() == [8, 9, 14, 23, 24]


def test_constant_and_signed_log_channels_are_scaled_to_finite_values() -> None:
    windows, labels, groups = waves()
    windows[:, 1] = 5.0
    windows[:, 0] = (windows[:, 0] - 100) * 1e4
    spec = NetworkSpec("conv1d", 2, 16, 3, (8, 8), (5, 3), transform="signedlog")
    trained = train_source(windows, labels, groups, spec, seed=0, epochs=1)
    kept = windows.astype(np.float64)
    logs = np.sign(kept) * np.log1p(np.abs(kept))
    np.testing.assert_allclose(trained.model.scaling.mean.numpy(), logs.mean(axis=(0, 2)), rtol=1e-5)
    np.testing.assert_allclose(trained.model.scaling.std.numpy(), [logs[:, 0].std(), 1.0], rtol=1e-5)
    assert np.isfinite(predict(trained.model, windows)).all()


def test_source_statistics_are_those_of_all_windows_and_not_of_the_last_batches() -> None:
    windows, labels, groups = waves()
    trained = train_source(windows, labels, groups, TINY, seed=0, epochs=1)
    x = torch.from_numpy(windows)
    with torch.no_grad():
        first = trained.model.blocks[0].get_submodule("map")(trained.model.scaling(x)).double()
    norm = trained.model.blocks[0].get_submodule("norm")
    np.testing.assert_allclose(norm.get_buffer("running_mean").numpy(), first.mean(dim=(0, 2)).numpy(), atol=1e-3)
    np.testing.assert_allclose(norm.get_buffer("running_var").numpy(), first.var(dim=(0, 2)).numpy(), rtol=1e-2)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"epochs": 0}, ConfigError),
        ({"spec": NetworkSpec("mlp", 2, 1, 3, (4,))}, ConfigError),
        ({"groups": np.array(["a"])}, ConfigError),
        ({"labels": np.zeros(300, dtype=np.int64)}, DataError),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change: dict[str, object], error: type[Exception]) -> None:
    windows, labels, groups = waves()
    arguments: dict[str, object] = {"labels": labels, "groups": groups, "spec": TINY, "seed": 0, "epochs": 1} | change
    with pytest.raises(error):
        train_source(windows, **arguments)  # type: ignore[arg-type]


def test_a_source_with_one_window_of_a_class_has_nothing_to_test_on() -> None:
    windows, labels, groups = waves(devices=1, each=10)
    with pytest.raises(DataError, match="too small"):
        train_source(windows[[0, 5, 8]], labels[[0, 5, 8]], groups[[0, 5, 8]], TINY, seed=0, epochs=1)


def test_the_default_network_follows_the_data() -> None:
    fleet = simulate_fleet(0, FleetPlan(1, 0, 40))
    spec = default_spec(fleet)
    assert (spec.kind, spec.channels, spec.length, spec.classes, spec.layers) == ("conv1d", 3, 128, 6, 3)


def test_tabular_rows_train_an_mlp_on_the_gas_recordings() -> None:
    from tests.adaptation.data.test_load import SHARED

    gas = load(SHARED / "gas_drift.npz", source="batch=1-2", transform="signedlog")
    spec = default_spec(gas)
    assert (spec.kind, spec.transform, spec.widths) == ("mlp", "signedlog", (96, 96))
    trained = train_source(gas.source.windows, gas.source.labels, gas.source.groups, spec, seed=0, epochs=4)
    assert trained.held_out_by == "tail"
    assert trained.accuracy > 0.85
