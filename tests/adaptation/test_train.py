"""Training: repeatable, held out by device, scaled by the source only, and clear about data that makes no model."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from adaptation.dataset import load
from adaptation.errors import ConfigError, DataError
from adaptation.nets import to_tensors
from adaptation.simulate import FleetPlan, simulate_fleet
from adaptation.spec import NetworkSpec
from adaptation.train import default_spec, hold_out, predict, train_source

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
    assert [call[:2] for call in calls] == [(epoch, 12) for epoch in range(1, 13)]
    assert [call[2] for call in calls] == list(trained.losses)
    answers = predict(trained.model, windows[trained.held_out]).argmax(axis=1)
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
    kept = windows[~mask].astype(np.float64)
    np.testing.assert_allclose(trained.model.scaling.mean.numpy(), kept.mean(axis=(0, 2)), rtol=1e-6)
    np.testing.assert_allclose(trained.model.scaling.std.numpy(), kept.std(axis=(0, 2)), rtol=1e-6)


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
    kept = windows[~trained.held_out].astype(np.float64)
    logs = np.sign(kept) * np.log1p(np.abs(kept))
    np.testing.assert_allclose(trained.model.scaling.mean.numpy(), logs.mean(axis=(0, 2)), rtol=1e-5)
    np.testing.assert_allclose(trained.model.scaling.std.numpy(), [logs[:, 0].std(), 1.0], rtol=1e-5)
    assert np.isfinite(predict(trained.model, windows)).all()


def test_source_statistics_are_those_of_the_training_part_and_not_of_the_last_batches() -> None:
    windows, labels, groups = waves()
    trained = train_source(windows, labels, groups, TINY, seed=0, epochs=1)
    x = torch.from_numpy(windows[~trained.held_out])
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
    from tests.adaptation.test_dataset import SHARED

    gas = load(SHARED / "gas_drift.npz", source="batch=1-2", transform="signedlog")
    spec = default_spec(gas)
    assert (spec.kind, spec.transform, spec.widths) == ("mlp", "signedlog", (96, 96))
    trained = train_source(gas.source.windows, gas.source.labels, gas.source.groups, spec, seed=0, epochs=4)
    assert trained.held_out_by == "tail"
    assert trained.accuracy > 0.85
