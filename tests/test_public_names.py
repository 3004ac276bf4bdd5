"""A public name that is missing, hidden behind an import, or there twice breaks a user's program with any version."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import acclimate

ROOT = Path(__file__).parents[1]
PACKAGES = ("adaptation", "infra", "registry", "streams")
# What `acclimate[device]` does not bring.
NOT_ON_A_DEVICE = (
    "aiokafka",
    "cryptography",
    "faust",
    "mlflow",
    "onnx",
    "onnxruntime",
    "orjson",
    "safetensors",
    "torch",
)


def run(program: str, without: tuple[str, ...] = (), cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a program as where these packages are not installed."""
    hidden = f"import sys; sys.modules.update(dict.fromkeys({without!r}))\n"
    return subprocess.run(
        [sys.executable, "-c", hidden + program], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_the_list_of_public_names_is_sorted_and_each_is_there_for_people_and_type_checkers() -> None:
    tree = ast.parse(Path(acclimate.__file__).read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {
        alias.name: f"{node.module}"
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert acclimate.__all__ == sorted(set(acclimate.__all__)) == sorted(typed) == dir(acclimate)
    for name, module in typed.items():
        __import__(module)
        assert getattr(acclimate, name) is getattr(sys.modules[module], name)


def test_the_page_of_public_names_has_each_of_them() -> None:
    table = [line for line in (ROOT / "docs" / "python.md").read_text().splitlines() if line.startswith("| `")]
    named = {name for line in table for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    assert named == set(acclimate.__all__)


def test_a_name_that_is_not_public_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="module 'acclimate' has no attribute 'EdgeClients'"):
        _ = acclimate.EdgeClients


def test_what_only_publishes_needs_no_engine_and_no_signatures() -> None:
    assert run("from acclimate import DataError, DeviceClient, Settings, load_settings", NOT_ON_A_DEVICE).stderr == ""


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("DeviceClient", "kafka", "device"),
        ("EdgeClient", "cryptography", "edge"),
        ("read_bundle", "safetensors", "edge"),
    ],
)
def test_a_missing_extra_is_one_sentence(name: str, package: str, extra: str) -> None:
    said = run(f"from acclimate import {name}", without=(package,)).stderr.splitlines()
    assert said[-1] == f"ImportError: {name} needs the package {package}: pip install 'acclimate[{extra}]'"


@pytest.mark.parametrize("package", PACKAGES)
def test_the_folders_of_the_repository_are_no_second_way_to_import(package: str) -> None:
    failed = run(f"import {package}")
    assert f"ImportError: expected `import acclimate.{package}`, found `import {package}`" in failed.stderr
