"""The arrows between packages, and who may import which heavy part (docs/architecture.md)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("adaptation", "infra", "registry", "streams")
MAY_IMPORT = {
    "adaptation": {"adaptation"},
    "infra": {"infra"},
    "registry": {"registry", "adaptation", "infra"},
    "streams": set(OURS),
}
ONLY_IN = {"mlflow": "registry", "faust": "streams", "aiokafka": "streams", "kafka": "streams"}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return {name.partition(".")[0] for name in found}


@pytest.mark.parametrize("package", OURS)
def test_no_package_imports_against_the_arrows(package):
    for path in (ROOT / package).rglob("*.py"):
        wrong = (imports(path) & set(OURS)) - MAY_IMPORT[package]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


@pytest.mark.parametrize("package", OURS)
def test_brokers_and_catalogues_are_imported_only_where_they_belong(package):
    for path in (ROOT / package).rglob("*.py"):
        wrong = {name for name in imports(path) & ONLY_IN.keys() if ONLY_IN[name] != package}
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_the_science_reads_no_clock_and_no_environment():
    for path in (ROOT / "adaptation").rglob("*.py"):
        wrong = imports(path) & {"os", "time", "random", "logging", "datetime"}
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_nothing_imports_a_deprecated_or_unsafe_serializer():
    for package in OURS:
        for path in (ROOT / package).rglob("*.py"):
            assert not imports(path) & {"pickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}
