"""`acclimate meta-train`, end to end on a small recording: what it writes, a kill, and each wrong use."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acclimate.adaptation.errors import ContractError
from acclimate.adaptation.generators.engine import GeneralizeFormerEngine, MggEngine
from acclimate.registry.bundles.generator_bundle import GENERATOR_FILES, GeneratorBundle, read_generator_bundle
from acclimate.registry.bundles.source_bundle import read_bundle
from acclimate.streams.cli import main
from tests.adaptation.model.test_train import waves

pytestmark = pytest.mark.xdist_group("meta-train")  # what is made once for all tests is made by one process
KINDS = pytest.mark.parametrize("kind", ["mgg", "generalizeformer"])


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    windows, labels, groups = waves(devices=6, each=40)
    path = tmp_path_factory.mktemp("data") / "waves.npz"
    np.savez(path, X=windows, y=labels, device=np.array([int(name[1:]) for name in groups]))
    return ["--data", str(path), "--source", "device=0-4"]


@pytest.fixture(scope="module")
def source(recording: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("source") / "bundle"
    assert run("train", *recording, "--augment", "none", "--epochs", "2", "--out", str(out)) == 0
    return out


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def meta_train(kind: str, source: Path, recording: list[str], out: Path, *more: str) -> list[str]:
    return ["meta-train", kind, "--bundle", str(source), *recording, "--out", str(out), *more]


@pytest.fixture(scope="module")
def made(recording: list[str], source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("made")
    for kind, updates in (("mgg", "4"), ("generalizeformer", "3")):
        assert run(*meta_train(kind, source, recording, folder / kind, "--updates", updates)) == 0
    return {kind: folder / kind for kind in ("mgg", "generalizeformer")}


@KINDS
def test_a_bundle_is_written_that_reads_back_and_runs_without_torch(
    kind: str, made: dict[str, Path], source: Path
) -> None:
    bundle = read_generator_bundle(made[kind])
    assert bundle.manifest.kind == kind
    assert isinstance(bundle.engine(), MggEngine if kind == "mgg" else GeneralizeFormerEngine)
    card = bundle.manifest.card
    assert {"data", "shifts", "seed", "held_out_loss", "milliseconds_per_batch", "generator_graph_bytes"} <= set(card)
    assert card["selection_source"] == "device=0-4"
    assert 0 < card["step_share"] <= 1
    assert bundle.manifest.compatibility.network_sha256 == (
        "any" if kind == "mgg" else read_bundle(source).manifest.compatibility.network_sha256
    )
    bundle.check_source(read_bundle(source).digest, read_bundle(source).spec)
    assert not made[kind].with_name(f"{kind}.checkpoint").exists()
    code = (
        "import sys; sys.modules['torch'] = None; from pathlib import Path;"
        "from acclimate.registry.bundles.generator_bundle import read_generator_bundle as read;"
        f"b = read(Path({str(made[kind])!r})); e = b.engine(); w = b.canary['windows'];"
        f"print({'e.step(e.start(), w)[1]' if kind == 'mgg' else 'e.generate(w)'}.probabilities.shape)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == str(bundle.canary["probabilities"].shape)


@KINDS
@pytest.mark.parametrize("name", ["manifest.json", *GENERATOR_FILES])
def test_any_changed_byte_is_refused(kind: str, name: str, made: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(made[kind], tmp_path / "bundle")
    content = bytearray((tmp_path / "bundle" / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "bundle" / name).write_bytes(bytes(content))
    with pytest.raises(ContractError):
        read_generator_bundle(tmp_path / "bundle")
    (tmp_path / "bundle" / name).unlink()
    with pytest.raises(ContractError, match="missing"):
        read_generator_bundle(tmp_path / "bundle")


@KINDS
def test_an_engine_that_gives_something_else_than_when_it_was_made_is_refused(kind: str, made: dict[str, Path]) -> None:
    bundle = read_generator_bundle(made[kind])
    changed = {**bundle.canary, "coordinates": bundle.canary["coordinates"] + np.float32(0.01)}
    with pytest.raises(ContractError, match="canary: coordinates"):
        GeneratorBundle(**{**vars(bundle), "canary": changed}).engine()
    few = {**bundle.canary, "windows": bundle.canary["windows"][:8]}
    with pytest.raises(ContractError, match="canary: expected at least 64 windows"):
        GeneratorBundle(**{**vars(bundle), "canary": few}).engine()


def test_a_generator_of_another_source_is_refused(made: dict[str, Path], source: Path) -> None:
    bundle = read_generator_bundle(made["mgg"])
    with pytest.raises(ContractError, match="was made for source bundle"):
        bundle.check_source("0" * 64, read_bundle(source).spec)


def test_json_tells_all_and_equal_runs_have_equal_weights(
    made: dict[str, Path], source: Path, recording: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*meta_train("mgg", source, recording, tmp_path / "again", "--updates", "4", "--json")) == 0
    said = json.loads(capsys.readouterr().out)
    files = read_generator_bundle(made["mgg"]).manifest.files
    assert said["weights_sha256"] == files["generator.safetensors"].sha256
    assert said["kind"] == "mgg"
    assert said["resumed_at"] == 0
    assert [check["update"] for check in said["checks"]] == [4]


@pytest.mark.long
@pytest.mark.parametrize(("kind", "updates", "every"), [("mgg", 8, 4), ("generalizeformer", 75, 25)])
def test_a_killed_run_goes_on_and_ends_with_the_same_weights(
    kind: str,
    updates: int,
    every: int,
    source: Path,
    recording: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = meta_train(kind, source, recording, tmp_path / "killed", "--updates", str(updates), "--json")
    process = subprocess.Popen([sys.executable, "-m", "acclimate.streams.cli", *command])
    checkpoint = tmp_path / "killed.checkpoint"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    assert run(*command) == 0
    resumed = json.loads(capsys.readouterr().out)
    assert resumed["resumed_at"] >= every
    whole = meta_train(kind, source, recording, tmp_path / "whole", "--updates", str(updates), "--json")
    assert run(*whole) == 0
    expected: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert resumed["weights_sha256"] == expected["weights_sha256"]
    assert resumed["checks"] == expected["checks"]
    assert not checkpoint.exists()


@pytest.mark.long
def test_two_processes_of_torchrun_make_one_bundle(
    source: Path, recording: list[str], made: dict[str, Path], tmp_path: Path
) -> None:
    torchrun = Path(sys.executable).with_name("torchrun")
    command = meta_train("mgg", source, recording, tmp_path / "two", "--updates", "4", "--json")
    said = subprocess.run(
        [torchrun, "--standalone", "--nproc-per-node", "2", "-m", "acclimate.streams.cli", *command],
        capture_output=True,
        text=True,
        check=True,
        timeout=150,
    )
    assert json.loads(said.stdout)["card"]["processes"] == 2
    two, one = (read_generator_bundle(folder) for folder in (tmp_path / "two", made["mgg"]))
    for name, value in one.weights.items():
        np.testing.assert_allclose(two.weights[name], value, atol=5e-3)


@pytest.mark.long
def test_a_checkpoint_of_another_training_is_refused_unless_forced(
    source: Path, recording: list[str], made: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bundle"
    command = meta_train("mgg", source, recording, out, "--updates", "4")
    process = subprocess.Popen([sys.executable, "-m", "acclimate.streams.cli", *command[:-1], "400"])
    while not out.with_name("bundle.checkpoint").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert run(*command) == 2
    assert "other updates" in capsys.readouterr().err
    assert run(*command, "--force") == 0
    assert read_generator_bundle(out).manifest.files.keys() == read_generator_bundle(made["mgg"]).manifest.files.keys()
    out.with_name("bundle.checkpoint").write_bytes(b"torn")
    shutil.rmtree(out)
    assert run(*command) == 3
    assert "is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--classifier"], 2, "--classifier: mgg moves gamma and beta alone"),
        (["--device", "cuda"], 2, "--device cuda: torch finds no CUDA device"),
        (["--channels", "0"], 2, "the data do not fit the bundle"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_taught(
    more: list[str],
    code: int,
    message: str,
    source: Path,
    recording: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import torch

    if "cuda" in more and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    assert run(*meta_train("mgg", source, recording, tmp_path / "out", *more)) == code
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_already_is_left_alone(
    source: Path, recording: list[str], made: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = (made["mgg"] / "manifest.json").read_bytes()
    assert run(*meta_train("mgg", source, recording, made["mgg"])) == 2
    assert "exists; choose another --out" in capsys.readouterr().err
    assert (made["mgg"] / "manifest.json").read_bytes() == before
