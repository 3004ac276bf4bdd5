"""Advice that installs the wrong extra, or none, leaves a user with the same error."""

import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from acclimate.infra.extras import _EXTRAS, missing_extra

ROOT = Path(__file__).parents[2]
DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def distributions(extra: str) -> set[str]:
    """Return what an extra names, the extras that it includes as well."""
    found = set()
    for requirement in map(Requirement, DECLARED[extra]):
        nested = requirement.extras if requirement.name == "acclimate" else ()
        found |= {requirement.name}.union(*map(distributions, nested))
    return found


@pytest.mark.parametrize("package", _EXTRAS)
def test_the_extra_that_is_named_brings_the_package(package: str) -> None:
    named = {name.lower() for name in packages_distributions()[package]}
    assert named & distributions(_EXTRAS[package])


def test_a_module_that_no_extra_brings_gets_no_advice() -> None:
    assert missing_extra(ModuleNotFoundError(name="acclimate.streams.no_such_module"), "this") is None
    assert missing_extra(ModuleNotFoundError("without a name"), "this") is None
