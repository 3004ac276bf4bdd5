"""A digest that misses a file would let a stale source, policy, generator or encoder pass as made by this code."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from acclimate.streams.lab.study import code_state
from acclimate.streams.lab.study.code_state import (
    ALIGNMENT_MAKERS,
    CHOICE_MAKERS,
    GENERATOR_MAKERS,
    POLICY_MAKERS,
    SOURCE_MAKERS,
    code_digest,
)

pytestmark = pytest.mark.xdist_group("code-state")  # what is made once for all tests is made by one process
ROOT = Path(__file__).parents[4]
ALL = [SOURCE_MAKERS, CHOICE_MAKERS, POLICY_MAKERS, GENERATOR_MAKERS, ALIGNMENT_MAKERS]


LOADED = """
import json, multiprocessing, sys
import torch

def loaded(modules):
    for module in modules:
        __import__(module)
    ours = [name for name in sys.modules if name.startswith("acclimate.adaptation") or name in modules]
    return [sys.modules[name].__file__ for name in ours]

with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:  # each from the same clean start
    print(json.dumps(pool.map(loaded, json.loads(sys.argv[1]), chunksize=1)))
"""


@pytest.fixture(scope="module")
def loaded() -> list[list[str]]:
    """What Python loads of `adaptation`, and the makers' modules, for each kind, as a process of its own tells."""
    modules = json.dumps([[maker.__module__ for maker in makers] for makers in ALL])
    command = [sys.executable, "-c", LOADED, modules]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout)


@pytest.mark.parametrize("kind", range(5), ids=["source", "choice", "policy", "generator", "alignment"])
def test_an_edit_of_any_file_that_python_loads_for_a_maker_changes_its_digest(
    kind: int, loaded: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    makers, statements = ALL[kind], code_state._statements
    before = code_digest(makers)
    assert len(loaded[kind]) > 5
    for edited in map(Path, loaded[kind]):

        def after_edit(path: Path, edited: Path = edited) -> str:
            return code_state._bare(path.read_bytes() + b"\nEDITED = 1\n") if path == edited else statements(path)

        monkeypatch.setattr(code_state, "_statements", after_edit)
        assert code_digest.__wrapped__(makers) != before, f"an edit of {edited} goes unseen"


def test_each_kind_has_a_digest_of_its_own() -> None:
    assert len({code_digest(), *map(code_digest, ALL)}) == 6


def test_a_renamed_file_a_comment_and_a_docstring_change_no_digest(tmp_path: Path) -> None:
    (tmp_path / "acclimate").mkdir()
    shutil.copy(ROOT / "infra" / "python" / "acclimate" / "__init__.py", tmp_path / "acclimate")
    for package in ("adaptation", "infra", "registry", "streams"):
        shutil.copytree(
            ROOT / package, tmp_path / "acclimate" / package, ignore=shutil.ignore_patterns("__pycache__", "python")
        )
    before = all_digests(tmp_path)
    renamed = tmp_path / "acclimate" / "adaptation" / "inner"
    renamed.mkdir()
    (renamed / "__init__.py").write_text('"""A room."""\n')
    (tmp_path / "acclimate" / "adaptation" / "model" / "nets.py").rename(renamed / "networks.py")
    for path in tmp_path.rglob("*.py"):
        path.write_text(
            path.read_text().replace(
                "acclimate.adaptation.model.nets import", "acclimate.adaptation.inner.networks import"
            )
            + "# x\n"
        )
    assert all_digests(tmp_path) == before


def all_digests(root: Path) -> str:
    names = ", ".join(f"c.{kind}_MAKERS" for kind in ("SOURCE", "CHOICE", "POLICY", "GENERATOR", "ALIGNMENT"))
    script = (
        f"import acclimate.streams.lab.study.code_state as c; print(c.__file__, *map(c.code_digest, ((), {names})))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        capture_output=True,
        text=True,
        cwd=root,
        env={"PYTHONPATH": str(root)},
    ).stdout
    assert printed.startswith(str(root))
    return printed


@pytest.mark.parametrize(
    ("content", "same"),
    [
        (b"import os\n\n\ndef f(x):\n    'doc'\n    return x + 1\n", True),
        (b"import os\nfrom acclimate.adaptation.errors import DataError\ndef f(x): return x + 1\n", False),
        (b"import os\ndef f(x): return x + 2\n", False),
        (b"import sys\ndef f(x): return x + 1\n", False),
    ],
)
def test_only_what_a_file_does_counts(content: bytes, same: bool) -> None:
    assert (code_state._bare(content) == code_state._bare(b"import os\n# why\ndef f(x): return x + 1\n")) is same
