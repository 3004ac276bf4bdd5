"""A recording of six devices, small enough to train on in a second."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.adaptation.test_train import waves


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    windows, labels, groups = waves(devices=6, each=40)
    device = np.array([int(name[1:]) for name in groups])
    path = tmp_path_factory.mktemp("evaluated") / "waves.npz"
    np.savez(path, X=windows, y=labels, device=device)
    path.with_suffix(".json").write_text(json.dumps({"class_names": ["low", "mid", "high"]}))
    return path
