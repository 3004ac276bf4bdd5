"""What `make test` leaves out to save time must leave none of the kinds of checks out."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
LATER = {"long", "chaos"}


def marks_of_tests(code: str) -> dict[str, set[str]]:
    """Return the marks of each test function, those of its class and of its file included."""
    found: dict[str, set[str]] = {}

    def look(nodes: list[ast.stmt], outer: set[str]) -> None:
        for node in nodes:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                marks = outer | {mark for each in node.decorator_list for mark in named(each)}
                if isinstance(node, ast.ClassDef):
                    look(node.body, marks)
                elif node.name.startswith("test_"):
                    found[node.name] = marks

    tree = ast.parse(code)
    given = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
    ]
    look(tree.body, {mark for each in given for mark in named(each)})
    return found


def named(expression: ast.expr) -> set[str]:
    """Return the names of marks that hold for every case of a test, not those of a single parameter."""
    marks = expression.elts if isinstance(expression, ast.List) else [expression]
    texts = [ast.unparse(mark.func if isinstance(mark, ast.Call) else mark) for mark in marks]
    return {text.removeprefix("pytest.mark.") for text in texts if text.startswith("pytest.mark.")}


def only_later(code: str) -> set[str]:
    """Return which of Kafka and MLflow only the long tests of a file use."""
    tests = list(marks_of_tests(code).values())
    long = {mark for marks in tests if "long" in marks for mark in marks}
    soon = {mark for marks in tests if not marks & LATER for mark in marks}
    return (long - soon) & {"kafka", "mlflow"}


def test_make_test_has_a_test_of_each_kind_that_is_long():
    paths = sorted(TESTS.rglob("test_*.py"))
    assert {path.name: missing for path in paths if (missing := only_later(path.read_text()))} == {}


def test_a_file_whose_tests_on_kafka_are_all_long_is_found():
    test = "@pytest.mark.{}\n@pytest.mark.kafka\ndef test_{}(): ...\n"
    assert only_later(test.format("long", "a") + "def test_b(): ...\n") == {"kafka"}
    assert only_later(test.format("long", "a") + test.format("timeout(9)", "b")) == set()
    assert only_later("pytestmark = [pytest.mark.long, pytest.mark.mlflow]\ndef test_a(): ...\n") == {"mlflow"}
    one_case = "@pytest.mark.kafka\n@pytest.mark.parametrize('n', [1, pytest.param(2, marks=pytest.mark.long)])\n"
    assert only_later(one_case + "def test_a(n): ...\n") == set()


@pytest.mark.xdist_group("tiers")
def test_tests_of_one_group_run_in_one_process(request: pytest.FixtureRequest):
    """pytest-xdist sends tests by names with the group at the end; where it writes none, each process makes all."""
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("only with --dist loadgroup")
    assert request.node.nodeid.endswith("@tiers")
