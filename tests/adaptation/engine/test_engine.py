"""The engine: what it refuses, that its self-test finds what it must, and that it needs neither torch nor onnx."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper

from acclimate.adaptation.engine.engine import (
    Engine,
    Outputs,
    engine_parameters,
    engine_version,
    instruction_set,
    parameter_shapes,
)
from acclimate.adaptation.engine.export import export_adapted, export_source
from acclimate.adaptation.errors import ContractError, DataError
from acclimate.adaptation.model.nets import to_tensors
from tests.adaptation.tiny_nets import CONV, MLP, lean, settled, windows_for

SETTINGS = lean(CONV)
REPOSITORY = Path(__file__).parents[3]


def graphs() -> tuple[bytes, bytes]:
    model, calibration = settled(CONV)
    return export_source(to_tensors(model), CONV, calibration), export_adapted(to_tensors(model), CONV, SETTINGS)


def parameters() -> dict[str, npt.NDArray[np.float32]]:
    return engine_parameters(to_tensors(settled(CONV)[0]), CONV, SETTINGS)


def engine(source: bytes | None = None, chunk: int = 32) -> Engine:
    first, second = graphs()
    return Engine(source or first, second, parameters(), SETTINGS, chunk)


def with_batch_dependence(graph: bytes, strength: float) -> bytes:
    """Return the source graph with a mean part that also depends on how many windows it was given."""
    model = onnx.load_from_string(graph)
    nodes = model.graph.node
    last = next(node for node in nodes if node.output[0] == "mean_part")
    last.output[0] = "honest"
    for node in nodes:
        node.input[:] = ["honest" if name == "mean_part" else name for name in node.input]
    model.graph.initializer.append(helper.make_tensor("strength", TensorProto.FLOAT, [], [strength]))
    nodes.extend([
        helper.make_node("Shape", ["windows"], ["batch_size"], start=0, end=1),
        helper.make_node("Cast", ["batch_size"], ["batch_float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["batch_float", "strength"], ["leak"]),
        helper.make_node("Add", ["honest", "leak"], ["mean_part"]),
    ])  # fmt: skip
    content: bytes = model.SerializeToString()
    return content


def test_the_self_test_passes_and_keeps_batches_where_they_are_exact() -> None:
    one = engine()
    windows = windows_for(CONV, 6)
    one.self_test(windows, vars(one.run(windows)))
    assert (one.batch_exact, one.chunk) == (True, 32)


def test_a_batch_that_differs_from_single_windows_makes_the_engine_run_one_at_a_time() -> None:
    source = with_batch_dependence(graphs()[0], 1e-6)
    one = engine(source)
    windows = windows_for(CONV, 6)
    one.self_test(windows, vars(engine(source, chunk=1).run(windows)))
    assert (one.batch_exact, one.chunk) == (False, 1)
    singles = [one.run(windows[i : i + 1]).mean_part for i in range(6)]
    assert one.run(windows).mean_part.tobytes() == np.concatenate(singles).tobytes()


@pytest.mark.parametrize("name", list(Outputs.__dataclass_fields__))
def test_an_output_away_from_the_canary_s_is_refused(name: str) -> None:
    windows = windows_for(CONV, 3)
    expected = vars(engine().run(windows))
    wrong = {**expected, name: expected[name] + np.float32(1e-3) * np.maximum(1, np.abs(expected[name]))}
    with pytest.raises(ContractError, match=f"canary {name}: expected outputs within"):
        engine().self_test(windows, wrong)
    with pytest.raises(ContractError, match=f"canary {name}"):
        engine().self_test(windows, {**expected, name: np.full_like(expected[name], np.nan)})
    with pytest.raises(ContractError, match=f"canary {name}: expected shape"):
        engine().self_test(windows, {**expected, name: expected[name][:2]})


@pytest.mark.parametrize("graph", [b"", b"not a graph", b"\x80\x04pickle"])
def test_bytes_that_are_no_graph_are_refused(graph: bytes) -> None:
    for pair in ((graph, graphs()[1]), (graphs()[0], graph)):
        with pytest.raises(ContractError, match="expected a graph"):
            Engine(*pair, parameters(), SETTINGS)


def test_graphs_that_do_not_belong_together_are_refused() -> None:
    source, adapted = graphs()
    with pytest.raises(ContractError, match="expected outputs"):
        Engine(adapted, source, parameters(), SETTINGS)
    model, calibration = settled(MLP)
    with pytest.raises(ContractError, match="different shapes"):
        Engine(export_source(to_tensors(model), MLP, calibration), adapted, parameters(), SETTINGS)


def test_parameters_that_do_not_fit_the_graph_are_refused() -> None:
    for wrong in (
        {name: value for name, value in parameters().items() if name != "tau"},
        {**parameters(), "head_bias": np.zeros((1, 9), np.float32)},
        {**parameters(), "tau": np.zeros(2, np.float32)},
    ):
        with pytest.raises(ContractError, match="parameters of the adapted graph"):
            Engine(*graphs(), wrong, SETTINGS)
    with pytest.raises(ContractError, match="expected 2 layer flags, found 1"):
        engine_parameters(to_tensors(settled(CONV)[0]), CONV, lean(CONV, layers=(True,)))


@pytest.mark.parametrize(
    ("windows", "reason"),
    [
        (np.zeros((2, 3, 20)), "wrong_type"),
        (np.zeros((3, 20), np.float32), "wrong_shape"),
        (np.zeros((2, 4, 20), np.float32), "wrong_shape"),
        (np.zeros((2, 3, 19), np.float32), "wrong_shape"),
        (np.full((2, 3, 20), np.nan, np.float32), "not_finite"),
        (np.full((2, 3, 20), -np.inf, np.float32), "not_finite"),
    ],
)
def test_windows_that_do_not_fit_are_wrong_data(windows: npt.NDArray[np.float32], reason: str) -> None:
    with pytest.raises(DataError) as caught:
        engine().run(windows)
    assert caught.value.reason == reason


def test_no_window_gives_empty_outputs_of_the_right_shape() -> None:
    outputs = engine().run(windows_for(CONV, 0))
    assert outputs.source_probabilities.shape == outputs.adapted_probabilities.shape == (0, 4)
    assert outputs.gain.shape == (0, 2)


def test_without_adaptation_the_source_s_outputs_are_the_same_and_the_rest_is_empty() -> None:
    windows = windows_for(CONV, 40)
    both, alone = engine().run(windows), engine().run(windows, adapted=False)
    assert alone.magnitude.tobytes() == both.magnitude.tobytes()
    assert alone.source_probabilities.tobytes() == both.source_probabilities.tobytes()
    assert len(alone.adapted_probabilities) == len(alone.distance) == len(alone.gain) == 0


def test_memory_layout_of_the_windows_does_not_change_a_bit() -> None:
    windows = windows_for(CONV, 40)
    expected = vars(engine().run(windows))
    room = np.zeros(windows.size + 1, np.float32)
    unaligned = room[1:].reshape(windows.shape)
    unaligned[:] = windows
    for other in (unaligned, np.asfortranarray(windows), np.repeat(windows, 2, axis=0)[::2]):
        assert all(values.tobytes() == expected[name].tobytes() for name, values in vars(engine().run(other)).items())


def test_running_changes_neither_the_windows_nor_the_parameters() -> None:
    windows, given = windows_for(CONV, 10), parameters()
    kept, kept_parameters = windows.copy(), {name: value.copy() for name, value in given.items()}
    Engine(*graphs(), given, SETTINGS).run(windows)
    assert windows.tobytes() == kept.tobytes()
    assert all(given[name].tobytes() == value.tobytes() for name, value in kept_parameters.items())


def test_the_engine_says_what_its_bits_depend_on() -> None:
    assert engine().version == engine_version()
    assert engine_version().startswith("onnxruntime 1.")
    assert len(instruction_set().split("-")) >= 2
    assert {name: value.shape[1:] for name, value in parameters().items()} == parameter_shapes(CONV)


def test_the_engine_runs_where_torch_and_onnx_cannot_be_imported(tmp_path: Path) -> None:
    windows = windows_for(CONV, 9)
    source, adapted = graphs()
    (tmp_path / "source.onnx").write_bytes(source)
    (tmp_path / "adapted.onnx").write_bytes(adapted)
    named = {f"p_{name}": value for name, value in parameters().items()}
    np.savez(tmp_path / "arrays.npz", allow_pickle=False, windows=windows, **named)
    program = f"""
import sys
for name in ("torch", "onnx"):
    sys.modules[name] = None  # importing it raises ImportError
from pathlib import Path
import numpy as np
from acclimate.adaptation.engine.engine import Engine
from acclimate.adaptation.lean.lean_settings import LeanSettings
folder = Path({str(tmp_path)!r})
arrays = np.load(folder / "arrays.npz")
parameters = {{name[2:]: arrays[name] for name in arrays if name.startswith("p_")}}
settings = LeanSettings(tau=0.3, lam=1.0, layers=(True, True))
engine = Engine((folder / "source.onnx").read_bytes(), (folder / "adapted.onnx").read_bytes(), parameters, settings)
sys.stdout.write(engine.run(arrays["windows"]).adapted_probabilities.tobytes().hex())
"""
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == engine().run(windows).adapted_probabilities.tobytes().hex()
    assert result.stderr == ""
