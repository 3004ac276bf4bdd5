"""Nothing here loads or writes pickle: loading one runs whatever code its author put in."""

import ast
import json
from pathlib import Path

import onnx
import pytest
from safetensors.numpy import load

from tests.registry.bundles.test_source_bundle import parts

REPOSITORY = Path(__file__).parents[2]
SOURCES = sorted(
    path for package in ("adaptation", "infra", "registry", "streams") for path in (REPOSITORY / package).rglob("*.py")
)
FORBIDDEN_MODULES = {"_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
FORBIDDEN_CALLS = {"torch.load", "torch.save", "torch.jit.load", "torch.jit.save", "torch.hub.load"}


def pickles_in(source: str) -> list[str]:
    """Return every way a program could reach a pickle, as the line says it."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in FORBIDDEN_MODULES]
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or "").split(".")[0]
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found += [node.module or ""] if module in FORBIDDEN_MODULES else sorted(names & FORBIDDEN_CALLS)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            found += [called] if called in FORBIDDEN_CALLS else []
            for keyword in node.keywords:
                harmless = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                found += [f"{called}(allow_pickle)"] if keyword.arg == "allow_pickle" and not harmless else []
    return found


def test_the_search_finds_what_it_is_for() -> None:
    for line in ("import pickle", "from joblib import load", "torch.load(f)", "from torch import save",
                 "np.load(f, allow_pickle=True)", "np.load(f, allow_pickle=flag)", "import dill.source"):  # fmt: skip
        assert pickles_in(line), line
    assert not pickles_in("np.load(f); np.load(f, allow_pickle=False); json.load(f); import numpy")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_no_source_file_uses_pickle(path: Path) -> None:
    assert pickles_in(path.read_text(encoding="utf-8")) == []


def test_every_file_of_a_bundle_is_json_safetensors_or_a_plain_graph() -> None:
    for name, content in parts().items():
        assert not content.startswith((b"\x80", b"PK", b"\x93NUMPY", b"\x1f\x8b")), name
        if name.endswith(".json"):
            json.loads(content)
        elif name.endswith(".safetensors"):
            assert load(content)
        else:
            graph = onnx.load_from_string(content)
            assert {entry.domain for entry in graph.opset_import} == {""}  # no operators of anyone's own
            assert not graph.functions
            assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in graph.graph.initializer)
