"""NetworkSpec: what cannot be a network is refused, and equal networks have equal digests."""

import dataclasses
from typing import Any

import pytest

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.lean.lean_settings import LeanSettings
from acclimate.adaptation.model.spec import NetworkSpec, compact_spec, expected_tensors, spec_digest

CONV: dict[str, Any] = {
    "kind": "conv1d",
    "channels": 3,
    "length": 20,
    "classes": 4,
    "widths": (6, 7),
    "kernels": (5, 3),
    "transform": "none",
}


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "transformer"},
        {"transform": "log"},
        {"channels": 0},
        {"channels": True},
        {"channels": 2.0},
        {"length": -1},
        {"length": 10**6},
        {"classes": 1},
        {"widths": ()},
        {"widths": (6,) * 7, "kernels": (3,) * 7},
        {"widths": (6, 0)},
        {"kernels": (5,)},
        {"kernels": (5, 4)},
        {"length": 3},
        {"kind": "mlp"},
    ],
)
def test_a_network_that_cannot_be_built_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"expected|too short|has none"):
        NetworkSpec(**{**CONV, **change})


def test_shapes_are_those_worked_out_by_hand() -> None:
    assert expected_tensors(NetworkSpec(**CONV)) == {
        "scaling.mean": (3,),
        "scaling.std": (3,),
        "blocks.0.map.weight": (6, 3, 5),
        "blocks.0.norm.weight": (6,),
        "blocks.0.norm.bias": (6,),
        "blocks.0.norm.running_mean": (6,),
        "blocks.0.norm.running_var": (6,),
        "blocks.1.map.weight": (7, 6, 3),
        "blocks.1.norm.weight": (7,),
        "blocks.1.norm.bias": (7,),
        "blocks.1.norm.running_mean": (7,),
        "blocks.1.norm.running_var": (7,),
        "head.weight": (4, 7),
        "head.bias": (4,),
    }


def test_any_changed_field_changes_the_digest() -> None:
    spec = NetworkSpec(**CONV)
    changes = ({"channels": 4}, {"length": 21}, {"classes": 5}, {"widths": (7, 6)}, {"kernels": (3, 5)})
    others = [dataclasses.replace(spec, **change) for change in (*changes, {"transform": "signedlog"})]
    assert len({spec_digest(spec), *map(spec_digest, others)}) == 7
    assert spec_digest(NetworkSpec(**CONV)) == spec_digest(spec)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 8, 24, 1024])
def test_a_compact_network_exists_for_every_length(length: int) -> None:
    spec = compact_spec(3, length, 4)
    assert spec.adaptable == (length > 1)


@pytest.mark.parametrize(
    "change",
    [
        {"tau": -0.1},
        {"tau": 1.1},
        {"tau": float("nan")},
        {"lam": 0.0},
        {"lam": float("inf")},
        {"threshold": -1.0},
        {"threshold": float("nan")},
        {"direction": "both"},
        {"layers": ()},
    ],
)
def test_lean_settings_out_of_range_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        LeanSettings(**{"tau": 0.5, "lam": 1.0, "layers": (True,), **change})


def test_the_default_settings_adapt_the_first_layer_alone_in_direction_b() -> None:
    settings = LeanSettings.for_layers(4)
    assert (settings.layers, settings.direction) == ((True, False, False, False), "target_on_large")
    assert LeanSettings.for_layers(1).layers == (True,)
