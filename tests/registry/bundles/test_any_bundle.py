"""What a release says of a bundle comes from the bundle, not from the code that reads it."""

from dataclasses import replace
from pathlib import Path

import pytest

from acclimate.registry.bundles.any_bundle import member_of
from acclimate.registry.canonical import canonical_bytes
from tests.support.models import tiny_bundle


@pytest.mark.parametrize("needed", [1, 2])
def test_a_member_names_the_contract_version_that_its_manifest_needs(needed: int, tmp_path: Path):
    bundle = tiny_bundle(tmp_path / "bundle")
    made = replace(bundle, manifest=bundle.manifest.model_copy(update={"code_contract_version": needed}))
    files = {path.name: path.read_bytes() for path in (tmp_path / "bundle").iterdir()}
    member = member_of("plant.source", 1, made, files)
    assert member.code_contract_version == needed
    assert (b"code_contract_version" in canonical_bytes(member)) == (needed > 1)
