"""Tell states of the source code apart by digests, so that an artifact of an earlier state is known as one.

A kept artifact is made by a function: by its module and by every file of `adaptation` that this imports, directly or
through others. The digest follows these imports, so no list can miss a file. It covers what the files do: a move of a
file, a comment or a docstring leaves it as it is.
"""

import ast
import hashlib
import importlib.util
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from acclimate import adaptation
from acclimate.adaptation.alignment.align import align
from acclimate.adaptation.generators.meta_train import meta_train
from acclimate.adaptation.methods.policy_calibration import calibrate_policy
from acclimate.adaptation.model.robust import choose_augmentation
from acclimate.adaptation.model.train import fit
from acclimate.streams.lab.study.selection import selected_dataset

__all__ = [
    "ALIGNMENT_MAKERS",
    "CHOICE_MAKERS",
    "GENERATOR_MAKERS",
    "POLICY_MAKERS",
    "SOURCE_MAKERS",
    "Maker",
    "code_digest",
]

Maker = Callable[..., Any]

# Whatever is made, the windows come from here.
_WINDOWS: tuple[Maker, ...] = (selected_dataset,)
SOURCE_MAKERS: tuple[Maker, ...] = (*_WINDOWS, fit)
CHOICE_MAKERS: tuple[Maker, ...] = (*_WINDOWS, choose_augmentation)
POLICY_MAKERS: tuple[Maker, ...] = (*_WINDOWS, calibrate_policy)
GENERATOR_MAKERS: tuple[Maker, ...] = (*_WINDOWS, fit, meta_train)
ALIGNMENT_MAKERS: tuple[Maker, ...] = (*_WINDOWS, fit, align)

_PACKAGE = adaptation.__name__


@cache
def code_digest(makers: tuple[Maker, ...] = ()) -> str:
    """Return 12 hexadecimal digits of the code that these functions are made of; of all of `adaptation` without any."""
    if makers:
        paths = _closure(*(maker.__module__ for maker in makers))
    else:
        paths = set(Path(adaptation.__file__).parent.rglob("*.py"))
    # Sorted by content and not by name; a file without statements, such as a package's marker, counts for nothing.
    contents = sorted({content for path in paths if (content := _statements(path))})
    return hashlib.sha256("\0".join(contents).encode()).hexdigest()[:12]


@cache
def _closure(*makers: str) -> set[Path]:
    """Return the files of these modules and of every module of `adaptation` that they import, with their packages."""
    found: dict[str, Path] = {}
    modules = list(makers)
    while modules:
        module = modules.pop()
        path = _path(module) if module not in found else None
        if path is not None:
            found[module] = path
            parent = module.rpartition(".")[0]
            modules += [parent if "." in parent else _PACKAGE, *_imported(ast.parse(path.read_bytes()))]
    return set(found.values())


@cache
def _path(module: str) -> Path | None:
    """Return the file of a module; None where the name is that of something inside a module."""
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # its parent is a module and no package
        return None
    return Path(spec.origin) if spec is not None and spec.origin is not None else None


def _imported(tree: ast.Module) -> Iterator[str]:
    """Yield each name that may be a module of ours; `from package import name` may mean one as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if _ours(alias.name))
        elif isinstance(node, ast.ImportFrom) and _ours(node.module):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _ours(module: str | None) -> bool:
    return f"{module}.".startswith(f"{_PACKAGE}.")


@cache
def _statements(path: Path) -> str:
    return _bare(path.read_bytes())


def _bare(content: bytes) -> str:
    """Return the code of a file without comments, docstrings and the places that it imports our own names from."""
    tree = ast.parse(content)
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and _ours(node.module):
            names += [f"{alias.name} as {alias.asname}" for alias in node.names]
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [each for each in body if not _says_nothing(each)]  # type: ignore[attr-defined]
    return "\n".join([*sorted(names), ast.unparse(tree)]).strip()


def _says_nothing(node: ast.stmt) -> bool:
    docstring = (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    )
    return docstring or (isinstance(node, ast.ImportFrom) and _ours(node.module))
