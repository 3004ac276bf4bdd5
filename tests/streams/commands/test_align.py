"""`acclimate align`, end to end on a small recording: what it writes, what reads it, and each wrong use."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from acclimate.adaptation.alignment.aligned import Aligned
from acclimate.adaptation.errors import ContractError
from acclimate.registry.bundles.aligned_bundle import ALIGNED_FILES, AlignedBundle, read_aligned_bundle
from acclimate.registry.bundles.source_bundle import read_bundle
from acclimate.streams.cli import main
from acclimate.streams.lab.making.aligned_model import aligned_of

pytestmark = pytest.mark.xdist_group("align")  # what is made once for all tests is made by one process


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


@pytest.fixture(scope="module")
def data(recordings: Path) -> list[str]:
    return ["--data", str(recordings), "--source", "device=0-4"]


@pytest.fixture(scope="module")
def source(data: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("source") / "bundle"
    assert run("train", *data, "--augment", "none", "--epochs", "2", "--out", str(out)) == 0
    return out


@pytest.fixture(scope="module")
def made(data: list[str], source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("aligned") / "cta"
    assert run("align", "--bundle", str(source), *data, "--epochs", "2", "--out", str(out)) == 0
    return out


def same(one: Aligned, other: Aligned) -> bool:
    parts = ((one.encoder, other.encoder), (one.head, other.head), (one.projector, other.projector))
    return all(torch.equal(mine[name], theirs[name]) for mine, theirs in parts for name in mine)


def test_a_bundle_is_written_that_reads_back_and_knows_its_source(made: Path, source: Path) -> None:
    bundle = read_aligned_bundle(made)
    assert bundle.manifest.kind == "cta"
    assert bundle.manifest.compatibility.source_sha256 == read_bundle(source).digest
    assert bundle.manifest.card["selection_source"] == "device=0-4"
    assert aligned_of(bundle, read_bundle(source)).settings.task == "contrastive"


def test_equal_runs_write_equal_weights(
    made: Path, source: Path, data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "again"
    assert run("align", "--bundle", str(source), *data, "--epochs", "2", "--out", str(out), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["kind"] == "cta"
    one, two = (aligned_of(read_aligned_bundle(folder), read_bundle(source)) for folder in (made, out))
    assert same(one, two)
    assert told["card"]["matched_cosine"] == pytest.approx(one.matched)


@pytest.mark.parametrize("name", ["manifest.json", *ALIGNED_FILES])
def test_any_changed_byte_is_refused(name: str, made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "bundle")
    content = bytearray((tmp_path / "bundle" / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "bundle" / name).write_bytes(bytes(content))
    with pytest.raises(ContractError):
        read_aligned_bundle(tmp_path / "bundle")


def test_another_source_and_other_answers_are_refused(
    made: Path, source: Path, recordings: Path, tmp_path: Path
) -> None:
    bundle = read_aligned_bundle(made)
    other = ["--data", str(recordings), "--source", "device=0-3", "--augment", "none", "--epochs", "1"]
    assert run("train", *other, "--out", str(tmp_path / "b")) == 0
    with pytest.raises(ContractError, match="align one for it"):
        aligned_of(bundle, read_bundle(tmp_path / "b"))
    off = {**bundle.canary, "probabilities": np.roll(bundle.canary["probabilities"], 1, axis=1)}
    with pytest.raises(ContractError, match="canary"):
        aligned_of(AlignedBundle(bundle.manifest, bundle.digest, bundle.tensors, off), read_bundle(source))


def test_what_a_task_forbids_is_read_from_the_description_and_kept(
    source: Path, recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(recordings, tmp_path / "waves.npz")
    options = ["--data", str(tmp_path / "waves.npz"), "--source", "device=0-4", "--epochs", "1"]
    (tmp_path / "waves.json").write_text(json.dumps({"unsafe_augmentations": ["gain", "shift"]}))
    assert run("align", "--bundle", str(source), *options, "--out", str(tmp_path / "cta")) == 0
    bundle = read_aligned_bundle(tmp_path / "cta")
    assert bundle.manifest.unsafe_augmentations == ("gain", "shift")
    assert aligned_of(bundle, read_bundle(source)).unsafe == ("gain", "shift")
    (tmp_path / "waves.json").write_text(json.dumps({"unsafe_augmentations": ["flip"]}))
    capsys.readouterr()
    assert run("align", "--bundle", str(source), *options, "--out", str(tmp_path / "other")) == 2
    assert "flip" in capsys.readouterr().err


def test_a_killed_run_goes_on_to_the_same_weights_and_another_is_refused(
    made: Path, source: Path, data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, checkpoint = tmp_path / "killed", tmp_path / "killed.checkpoint"
    command = ["align", "--bundle", str(source), *data, "--epochs", "2", "--out", str(out)]
    process = subprocess.Popen([sys.executable, "-m", "acclimate.streams.cli", *command])
    while not checkpoint.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not out.exists()
    assert run(*command, "--seed", "1") == 2
    assert "other seed" in capsys.readouterr().err
    assert run(*command) == 0
    told = capsys.readouterr().err
    assert "self-supervised, epoch 1" not in told
    assert "alignment, epoch 2 of 2" in told
    assert not checkpoint.exists()
    one, two = (aligned_of(read_aligned_bundle(folder), read_bundle(source)) for folder in (made, out))
    assert same(one, two)


def test_an_existing_folder_and_other_data_are_refused(
    made: Path, source: Path, data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("align", "--bundle", str(source), *data, "--out", str(made)) == 2
    assert "exists" in capsys.readouterr().err
    assert run("align", "--bundle", str(source), "--out", str(tmp_path / "x")) == 2
    assert "do not fit" in capsys.readouterr().err
