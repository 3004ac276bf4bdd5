"""Who answers which device under a release: each set by its bundle and in its mode, and by which code."""

import tarfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from acclimate.adaptation.errors import ContractError
from acclimate.registry.bundles.source_bundle import Bundle, read_bundle
from acclimate.registry.releases.release import unit_hash
from acclimate.streams.serving.served import Loaded, in_force_of, rungs, serve
from tests.support.models import tiny_bundle, windows
from tests.support.signed import member, release

KEPT = Path(__file__).parents[2] / "kept" / "f03a09a" / "bundles.tar.xz"
SALT = "ab" * 8
DEVICES = [f"pump-{number}" for number in range(20)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("served") / "bundle"
    tiny_bundle(folder)
    return read_bundle(folder)


def loaded(bundle: Bundle, stable_mode: str, candidate_mode: str) -> Loaded:
    """Return a roll-out that changes the mode alone, to half of the devices."""
    files = member("source").files | {"manifest.json": bundle.digest}
    bundles = {"source": member("source").model_copy(update={"files": files})}
    modes = {"stable_mode": stable_mode, "candidate_mode": candidate_mode}
    return Loaded(release(7, stable=bundles, candidate=bundles, share=0.5, salt=SALT, **modes), {bundle.digest: bundle})


@pytest.mark.parametrize("modes", [("observe", "always"), ("always", "observe")])
def test_a_device_is_answered_in_the_mode_of_its_set_by_one_engine_that_was_tested_once(
    bundle: Bundle, modes: tuple[str, str]
):
    with patch.object(Bundle, "engine", autospec=True, side_effect=Bundle.engine) as made:
        in_force = in_force_of(loaded(bundle, *modes))
    assert made.call_count == 1
    x = windows(16)
    for device in DEVICES:
        served = in_force.served(device)
        mode = modes[1] if unit_hash(SALT, device) < 0.5 else modes[0]
        assert (served.receipt.mode, served.receipt.epoch, served.receipt.bundle) == (mode, 7, bundle.digest)
        assert served.receipt == serve(bundle, mode, 7).receipt
        assert served.adapts(served.engine.run(x).magnitude).any() == (mode == "always")
    assert {in_force.served(device).receipt.mode for device in DEVICES} == set(modes)


@pytest.mark.parametrize("modes", [("gated", "observe"), ("observe", "gated"), ("observe", "by the moon")])
def test_a_mode_that_this_version_does_not_serve_answers_nobody(bundle: Bundle, modes: tuple[str, str]):
    with pytest.raises(ContractError, match="expected mode observe or always, found"):
        in_force_of(loaded(bundle, *modes))


def test_a_bundle_of_code_contract_version_1_is_served_and_its_receipts_name_version_2(tmp_path: Path) -> None:
    with tarfile.open(KEPT) as archive:
        archive.extractall(tmp_path, [m for m in archive if m.name.startswith("bundles/source")], filter="data")
    bundle = read_bundle(tmp_path / "bundles" / "source")
    served = serve(bundle, "always")
    assert (bundle.manifest.code_contract_version, served.receipt.code_contract_version) == (1, 2)


@pytest.mark.parametrize(("mode", "wanted"), [("always", {"source", "leantta"}), ("observe", {"source"})])
def test_the_name_of_who_answers_is_the_one_whose_probabilities_answer(mode, wanted, bundle) -> None:
    served = serve(bundle, mode)
    outputs = served.engine.run(bundle.canary["windows"])
    names = rungs(served.adapts(np.array([0.5, 1.0, 2.0], np.float32)))
    assert set(names) == wanted
    assert names == (["source", "leantta", "leantta"] if mode == "always" else ["source"] * 3)
    for name, *found in zip(
        rungs(served.adapts(outputs.magnitude)),
        served.probabilities(outputs),
        outputs.source_probabilities,
        outputs.adapted_probabilities,
        strict=True,
    ):
        assert found[0].tolist() == found[1 if name == "source" else 2].tolist()
