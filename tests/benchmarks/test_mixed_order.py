"""Von Neumann's ratio, and what the benchmark says of two simulated devices."""

import numpy as np
import pytest

from acclimate.adaptation.data.dataset import Split
from acclimate.adaptation.model.spec import NetworkSpec
from benchmarks.mixed_order import mixing, study


def test_independent_features_have_ratio_one_and_a_random_walk_nearly_none() -> None:
    noise = np.random.default_rng(0).normal(size=(20_000, 3))
    assert mixing(noise.astype(np.float32)) == pytest.approx(1.0, abs=0.02)
    assert mixing(noise.cumsum(axis=0).astype(np.float32)) < 0.01


def test_the_ratio_is_the_hand_computed_one() -> None:
    # Differences (1, 0), (0, 2): squares 1 and 4, mean 2.5. Variances 2/9 and 8/9: twice their sum is 20/9.
    features = np.array([[0, 0], [1, 0], [1, 2]], dtype=np.float32)
    assert mixing(features) == pytest.approx(2.5 / (20 / 9))


def test_features_that_never_change_have_no_ratio() -> None:
    assert np.isnan(mixing(np.ones((5, 2), dtype=np.float32)))


def test_runs_of_one_class_are_told_from_the_same_windows_shuffled() -> None:
    rng = np.random.default_rng(1)
    labels = np.tile(np.repeat(np.arange(2), 60), 2)
    windows = (rng.normal(size=(240, 2, 16)) * (1 + 4 * labels)[:, None, None]).astype(np.float32)
    devices = np.repeat(np.array(["a", "b"]), 120)
    spec = NetworkSpec("conv1d", channels=2, length=16, classes=2, widths=(8, 8), kernels=(5, 3))
    found = list(study(Split(windows, labels, devices, np.arange(240), 0), spec, 0, None))
    assert [left.device for left in found] == ["a", "b"]
    for left in found:
        assert left.ordered_mixing < 0.3 < 0.7 < left.shuffled_mixing
        assert left.accuracy > 0.8
        assert len(left.adapted) == 2
