"""A bundle to serve and a fleet of one's own for every test."""

import uuid
from pathlib import Path

import pytest

from registry.bundle import Bundle
from tests.support.models import tiny_bundle


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    tiny_bundle(folder)
    return folder


@pytest.fixture(scope="session")
def bundle(bundle_folder: Path) -> Bundle:
    from registry.bundle import read_bundle

    return read_bundle(bundle_folder)


@pytest.fixture
def fleet() -> str:
    return f"t{uuid.uuid4().hex[:10]}"
