"""What differs between two bundles is named, and how far weights have moved is their relative distance."""

import json

import numpy as np
import pytest
from safetensors.numpy import save

from acclimate.adaptation.errors import ContractError
from acclimate.registry.bundles.difference import difference


def files(manifest: dict[str, object], **tensors: np.ndarray) -> dict[str, bytes]:
    return {"manifest.json": json.dumps(manifest).encode(), "weights.safetensors": save(tensors)}


def test_changed_added_and_lost_entries_are_named_by_their_path():
    before = files({"lean": {"tau": 0.25, "lam": 1.0}, "training": {"seed": 1}, "checksum": "a"})
    after = files({"lean": {"tau": 0.5, "lam": 1.0}, "training": {"epochs": 3}, "checksum": "b"})
    found = difference(before, after)
    assert found.values == {"lean.tau": (0.25, 0.5), "training.seed": (1, None), "training.epochs": (None, 3)}
    assert found.tensors == {}


def test_the_distance_of_a_tensor_is_relative_to_its_norm():
    before = files({}, a=np.array([3.0, 4.0], np.float32), b=np.ones(3, np.float32), c=np.zeros(2, np.float32))
    after = files({}, a=np.array([3.0, 5.0], np.float32), b=np.ones(4, np.float32), c=np.zeros(2, np.float32))
    found = difference(before, after).tensors
    assert found == {"weights.safetensors: a": pytest.approx(0.2), "weights.safetensors: b": None}


def test_what_is_no_bundle_is_refused():
    with pytest.raises(ContractError, match="manifest"):
        difference({}, files({}))
    with pytest.raises(ContractError, match="expected tensors"):
        difference(files({}), files({}) | {"weights.safetensors": b"nothing"})
