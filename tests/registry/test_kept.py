"""What an older version wrote and signed is still read, believed and written alike."""

import shutil
import tarfile
from pathlib import Path

import pytest

from acclimate.adaptation.model.spec import NetworkSpec, spec_digest
from acclimate.registry.bundles.any_bundle import check_manifest_signature, read_any_bundle
from acclimate.registry.bundles.manifest import MANIFEST_FILE, SIGNATURE_FILE
from acclimate.registry.bundles.member import KINDS, Kind
from acclimate.registry.canonical import Signed, canonical_bytes
from acclimate.registry.releases.acceptance import Seen, consider
from acclimate.registry.releases.approval import Approval, read_approval
from acclimate.registry.releases.history import Entry, read_entries
from acclimate.registry.releases.receiver_state import STATE_FILE, read_state
from acclimate.registry.releases.release import Release, parse_record
from acclimate.registry.releases.remark import Remark, read_remark
from acclimate.registry.releases.verdict import Verdict, read_verdict
from acclimate.registry.trust.envelope import Envelope, parse_envelope
from acclimate.registry.trust.trust import Trust, read_trust
from tests.support.signed import FLEET, NOW_MS

KEPT = Path(__file__).parents[1] / "kept" / "f03a09a"
pytestmark = pytest.mark.xdist_group("kept")  # the bundles are unpacked once


def envelope(name: str) -> Envelope:
    return parse_envelope((KEPT / name).read_bytes(), name)


def record(number: int) -> bytes:
    return (KEPT / f"release-{number}.json").read_bytes()


@pytest.fixture(scope="module")
def trust() -> Trust:
    return read_trust(envelope("trust.json"))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept")
    with tarfile.open(KEPT / "bundles.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "bundles"


def test_each_release_is_taken_after_the_one_before():
    seen = Seen(envelope("trust.json"))
    for number, step in ((1, "rollback"), (2, "wave")):
        offer = consider(seen, record(number), FLEET, NOW_MS)
        assert (offer.release.epoch, offer.release.step) == (number, step)
        seen = offer.seen
    assert set(offer.release.candidate) == set(KINDS)


def test_the_history_believes_every_statement(trust: Trust):
    kept = [parse_record(record(1)).release, parse_record(record(2)).release]
    kept += [envelope(f"{name}.json") for name in ("approval", "verdict", "remark")]
    history = read_entries([Entry(number, NOW_MS, each) for number, each in enumerate(kept)], trust)
    counts = [len(each) for each in (history.releases, history.approvals, history.verdicts, history.remarks)]
    assert counts == [2, 1, 1, 1]
    assert history.passed_over == 0
    assert history.verdicts[0].verdict.passed


def test_what_is_written_anew_is_the_same_text(trust: Trust):
    """Older versions compare a text with their own form of it: equal texts are those that they read."""
    read: list[tuple[Envelope, Signed, type[Signed]]] = [
        (envelope("trust.json"), trust, Trust),
        (envelope("approval.json"), read_approval(envelope("approval.json"), trust), Approval),
        (envelope("verdict.json"), read_verdict(envelope("verdict.json"), trust), Verdict),
        (envelope("remark.json"), read_remark(envelope("remark.json"), trust), Remark),
    ]
    for number in (1, 2):
        release = consider(Seen(envelope("trust.json")), record(number), FLEET, NOW_MS).release
        read.append((parse_record(record(number)).release, release, Release))
    for kept, statement, kind in read:
        assert isinstance(statement, kind)
        assert canonical_bytes(statement) == kept.content()


def test_a_receiver_goes_on_from_its_memory(tmp_path: Path):
    shutil.copy(KEPT / STATE_FILE, tmp_path)
    state = read_state(tmp_path)
    assert state is not None
    assert state.epoch == 1
    assert state.installed == parse_record(record(1)).release


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_bundle_is_read_and_its_signature_holds(kind: Kind, bundles: Path, trust: Trust):
    bundle = read_any_bundle(bundles / kind, kind)
    raw = (bundles / kind / MANIFEST_FILE).read_bytes()
    assert canonical_bytes(bundle.manifest) == raw
    release = consider(Seen(envelope("trust.json")), record(2), FLEET, NOW_MS).release
    assert release.candidate[kind].digest == bundle.digest
    check_manifest_signature(raw, (bundles / kind / SIGNATURE_FILE).read_bytes(), trust)


@pytest.mark.parametrize(
    ("spec", "digest"),
    [
        (
            NetworkSpec("conv1d", 3, 104, 4, (48, 48), (7, 5)),
            "38017e6d9c661cf0903c86d95db10e93adbb995ce35af553f9cedd900a90d135",
        ),
        (NetworkSpec("mlp", 2, 1, 3, (4,)), "a6452d958fcd408c959c0e8011dff01f5afd7c66d2b234e98ebe9b276186bfdf"),
        (
            NetworkSpec("conv1d", 1, 64, 2, (8,), (3,), "signedlog"),
            "0ae1cbd3de173dc947f96658a261b8ed866250b5d7486ebe8de6442e65bc1169",
        ),
    ],
)
def test_a_generator_from_before_still_fits_the_network_it_was_made_for(spec: NetworkSpec, digest: str):
    assert spec_digest(spec) == digest
