"""The exported graphs: as the torch reference, and the same bits for a window in any batch."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

from acclimate.adaptation.engine.engine import Engine, Outputs, engine_parameters
from acclimate.adaptation.engine.export import export_adapted, export_source
from acclimate.adaptation.lean.lean_settings import LeanSettings
from acclimate.adaptation.lean.leantta import adapt_batch
from acclimate.adaptation.lean.shift import calibrate, measure
from acclimate.adaptation.model.nets import from_tensors, to_tensors
from acclimate.adaptation.model.spec import NetworkSpec, expected_tensors
from tests.adaptation.tiny_nets import CONV, MLP, ODD, SPECS, lean, settled, windows_for

FLAT = NetworkSpec("mlp", channels=3, length=9, classes=3, widths=(5, 6))
ALL = (*SPECS, FLAT, NetworkSpec("conv1d", channels=1, length=2, classes=2, widths=(3,), kernels=(1,)))
VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"direction": "source_on_large"},
    {"normalize_by_channels": False, "lam": 3.0},
    {"direction": "source_on_large", "normalize_by_channels": False, "lam": 0.25, "tau": 0.0},
    {"lam": 2.0, "tau": 0.9},
)


def engine_for(spec: NetworkSpec, settings: LeanSettings, chunk: int = 32) -> Engine:
    model, calibration = settled(spec)
    tensors = to_tensors(model)
    graphs = export_source(tensors, spec, calibration), export_adapted(tensors, spec, settings)
    return Engine(*graphs, engine_parameters(tensors, spec, settings), settings, chunk)


def assert_equal_bits(one: Outputs, other: Outputs) -> None:
    for name, values in vars(one).items():
        np.testing.assert_array_equal(values.view(np.uint32), getattr(other, name).view(np.uint32), err_msg=name)


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: f"{spec.kind}-{spec.channels}x{spec.length}")
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_both_graphs_give_what_torch_gives(spec: NetworkSpec, variant: dict[str, Any]) -> None:
    model, calibration = settled(spec)
    settings = lean(spec, **variant)
    windows = (windows_for(spec, 60, seed=7) * 2 + 0.5).astype(np.float32)
    found = engine_for(spec, settings).run(windows)
    adapted = adapt_batch(model, torch.from_numpy(windows), settings)
    expected: dict[str, npt.NDArray[np.float32]] = {
        "source_probabilities": torch.softmax(model(torch.from_numpy(windows)), dim=1).numpy(),
        "adapted_probabilities": torch.softmax(adapted.logits, dim=1).numpy(),
        "distance": adapted.distance.numpy(),
        "gain": adapted.gain.numpy(),
        **vars(measure(model, windows, calibration)),
    }
    for name, values in vars(found).items():
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: f"{spec.kind}-{spec.channels}x{spec.length}")
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_window_s_bits_do_not_depend_on_its_batch(spec: NetworkSpec, variant: dict[str, Any]) -> None:
    settings = lean(spec, **variant)
    windows = windows_for(spec, 256, seed=9)
    singles = engine_for(spec, settings, chunk=1).run(windows)
    for size in (2, 3, 7, 8, 31, 32, 256):
        assert_equal_bits(engine_for(spec, settings, chunk=size).run(windows), singles)


@pytest.mark.parametrize("spec", [CONV, ODD, MLP], ids=lambda spec: f"{spec.kind}-{spec.channels}x{spec.length}")
def test_windows_of_devices_with_different_parameters_share_a_batch_without_changing_a_bit(spec: NetworkSpec) -> None:
    engine = engine_for(spec, lean(spec))
    windows = windows_for(spec, 20, seed=3)
    rng = np.random.default_rng(0)
    base = engine_parameters(to_tensors(settled(spec)[0]), spec, lean(spec))
    rows = {
        name: (np.repeat(value, 20, axis=0) * rng.uniform(0.5, 1.5, (20, *value.shape[1:]))).astype(np.float32)
        for name, value in base.items()
    }
    rows["tau"] = rng.uniform(0, 1, 20).astype(np.float32)
    rows["lambda"] = rng.choice([0.5, 2.0, 3.0], 20).astype(np.float32)
    rows["mask"] = rng.integers(0, 2, (20, spec.layers)).astype(np.float32)
    together = engine.run(windows, parameters=rows)
    for i in range(20):
        alone = engine.run(windows[i : i + 1], parameters={name: value[i : i + 1] for name, value in rows.items()})
        for name, values in vars(alone).items():
            assert values[0].tobytes() == getattr(together, name)[i].tobytes(), name


@pytest.mark.parametrize("off", [{"layers": (False,) * 3}, {"tau": 1.0}], ids=str)
@pytest.mark.parametrize("direction", ["target_on_large", "source_on_large"])
def test_adaptation_that_is_off_gives_the_source_s_bits(off: dict[str, Any], direction: str) -> None:
    outputs = engine_for(ODD, lean(ODD, direction=direction, **off)).run(windows_for(ODD, 33))
    assert outputs.adapted_probabilities.tobytes() == outputs.source_probabilities.tobytes()
    assert not outputs.gain.any()


@pytest.mark.parametrize("spec", [MLP, FLAT], ids=lambda spec: f"{spec.kind}-{spec.channels}x{spec.length}")
def test_a_network_without_a_time_axis_answers_with_the_source_s_bits(spec: NetworkSpec) -> None:
    outputs = engine_for(spec, lean(spec, tau=0.0)).run(windows_for(spec, 33) * 100)
    assert outputs.adapted_probabilities.tobytes() == outputs.source_probabilities.tobytes()
    assert not outputs.gain.any()
    assert not outputs.distance.any()
    assert not outputs.variance_part.any()


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: f"{spec.kind}-{spec.channels}x{spec.length}")
def test_the_largest_and_the_smallest_inputs_give_finite_outputs(spec: NetworkSpec) -> None:
    windows = np.full((5, spec.channels, spec.length), np.finfo(np.float32).max)
    windows[1, :, ::2] *= -1
    windows[2] = 0
    windows[3] = np.finfo(np.float32).smallest_subnormal
    windows[4, ::2] = 1e-30
    for direction in ("target_on_large", "source_on_large"):
        outputs = engine_for(spec, lean(spec, tau=0.0, direction=direction)).run(windows.astype(np.float32))
        assert all(np.isfinite(values).all() for values in vars(outputs).values())


def test_a_signed_logarithm_keeps_small_values() -> None:
    spec = NetworkSpec("mlp", channels=1, length=1, classes=2, widths=(1,), transform="signedlog")
    tensors = {name: np.ones(shape, np.float32) for name, shape in expected_tensors(spec).items()}
    tensors["scaling.mean"][:] = 0
    tensors["scaling.std"][:] = 1e-9
    tensors["head.weight"][:] = [[1], [0]]
    tensors["head.bias"][:] = 0
    tensors["blocks.0.norm.running_mean"][:] = 0
    values = np.array([1e-9, 3e-9, 1e-8], np.float32)
    calibration = calibrate(from_tensors(spec, tensors), values.reshape(3, 1, 1), values.reshape(3, 1, 1))
    settings = lean(spec)
    graphs = export_source(tensors, spec, calibration), export_adapted(tensors, spec, settings)
    outputs = Engine(*graphs, engine_parameters(tensors, spec, settings), settings).run(values.reshape(3, 1, 1))
    logit = np.log1p(values.astype(np.float64)) / 1e-9 / np.sqrt(1 + 1e-5) + 1
    np.testing.assert_allclose(outputs.source_probabilities[:, 0], 1 / (1 + np.exp(-logit)), rtol=1e-5)


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: f"{spec.kind}-{spec.channels}x{spec.length}")
def test_no_operation_is_used_whose_bits_depend_on_the_place_in_a_batch(spec: NetworkSpec) -> None:
    model, calibration = settled(spec)
    for graph in (
        export_source(to_tensors(model), spec, calibration),
        export_adapted(to_tensors(model), spec, lean(spec)),
    ):
        kinds = {node.op_type for node in onnx.load_from_string(graph).graph.node}
        assert not kinds & {"ReduceMean", "ReduceSum", "ReduceSumSquare", "Log", "Pow", "Einsum", "BatchNormalization"}


def test_the_same_model_is_exported_to_the_same_bytes() -> None:
    model, calibration = settled(CONV)
    tensors = to_tensors(model)
    assert export_source(tensors, CONV, calibration) == export_source(tensors, CONV, calibration)
    assert export_adapted(tensors, CONV, lean(CONV)) == export_adapted(tensors, CONV, lean(CONV))
