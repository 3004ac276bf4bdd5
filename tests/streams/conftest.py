"""A bundle to serve, recordings of a small fleet, and a fleet of one's own for every test."""

import json
import uuid
from pathlib import Path

import numpy as np
import pytest

from acclimate.registry.bundles.source_bundle import Bundle
from tests.adaptation.model.test_train import waves
from tests.support.models import tiny_bundle


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    tiny_bundle(folder)
    return folder


@pytest.fixture(scope="session")
def bundle(bundle_folder: Path) -> Bundle:
    from acclimate.registry.bundles.source_bundle import read_bundle

    return read_bundle(bundle_folder)


@pytest.fixture(scope="session")
def rated_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle that takes 52 Hz and was trained on a window per second."""
    folder = tmp_path_factory.mktemp("bundles") / "rated"
    tiny_bundle(folder, sampling_rate_hz=52.0, step_samples=52)
    return folder


@pytest.fixture(scope="session")
def rated(rated_folder: Path) -> Bundle:
    from acclimate.registry.bundles.source_bundle import read_bundle

    return read_bundle(rated_folder)


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a recording of six devices, small enough to train on in a second."""
    windows, labels, groups = waves(devices=6, each=40)
    device = np.array([int(name[1:]) for name in groups])
    path = tmp_path_factory.mktemp("evaluated") / "waves.npz"
    np.savez(path, X=windows, y=labels, device=device)
    path.with_suffix(".json").write_text(json.dumps({"class_names": ["low", "mid", "high"]}))
    return path


@pytest.fixture
def fleet() -> str:
    return f"t{uuid.uuid4().hex[:10]}"
