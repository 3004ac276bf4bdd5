"""Bundles: written whole, read only when everything is right, refused with an error that says what is wrong."""

import functools
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from acclimate.adaptation.engine.engine import CODE_CONTRACT_VERSION
from acclimate.adaptation.errors import ConfigError, ContractError
from acclimate.adaptation.lean.leantta import adapt_batch
from acclimate.registry.bundles.manifest import PART_FILES, FileEntry, PartFile, manifest_bytes
from acclimate.registry.bundles.source_bundle import Bundle, build_bundle, read_bundle, write_bundle
from acclimate.registry.bundles.tensor_file import read_tensors
from acclimate.registry.folder import write_folder
from tests.adaptation.tiny_nets import CONV, MLP, lean, settled, windows_for

FILES = ("manifest.json", *PART_FILES)
CARD: dict[str, str | bool | int | float | None] = {"data": "made up", "seed": 3, "accuracy": 0.5, "held_out": None}
REPOSITORY = Path(__file__).parents[3]


def build(folder: Path, **changes: Any) -> Bundle:
    model, calibration = settled(CONV)
    arguments: dict[str, Any] = {
        "model": model,
        "settings": lean(CONV),
        "calibration": calibration,
        "channel_names": ("x", "y", "z"),
        "class_names": ("0", "1", "2", "3"),
        "training": CARD,
        "canary_windows": windows_for(CONV, 5),
        "folder": folder,
    }
    return build_bundle(**{**arguments, **changes})


@functools.cache
def parts() -> dict[str, bytes]:
    """Return the files of one good bundle."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder) / "bundle")
        return {name: (Path(folder) / "bundle" / name).read_bytes() for name in FILES}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for name, content in parts().items():
        (bundle / name).write_bytes(content)
    return bundle


def forge(folder: Path, name: PartFile, content: bytes) -> None:
    """Replace a file and write a manifest that agrees with it, as whoever can write the folder could."""
    (folder / name).write_bytes(content)
    files = {
        part: FileEntry(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
        for part in PART_FILES
        for data in [(folder / part).read_bytes()]
    }
    raw = manifest_bytes(CONV, lean(CONV), ("x", "y", "z"), ("0", "1", "2", "3"), CARD, files)
    (folder / "manifest.json").write_bytes(raw)


def forge_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest and correct its checksum."""
    document = json.loads(parts()["manifest.json"])
    change(document)
    document["checksum"] = ""
    text = json.dumps(document, sort_keys=True, indent=1) + "\n"
    document["checksum"] = hashlib.sha256(text.encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(document, sort_keys=True, indent=1) + "\n")


def test_what_was_built_is_what_is_read(tmp_path: Path) -> None:
    built = build(tmp_path / "deep" / "bundle")
    bundle = read_bundle(tmp_path / "deep" / "bundle")
    raw = (tmp_path / "deep" / "bundle" / "manifest.json").read_bytes()
    assert bundle.digest == built.digest == hashlib.sha256(raw).hexdigest()
    assert (bundle.spec, bundle.settings, bundle.manifest.training) == (CONV, lean(CONV), CARD)
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["bundle"]
    model, _ = settled(CONV)
    windows = windows_for(CONV, 40, seed=4)
    engine = bundle.engine()
    assert (engine.batch_exact, engine.chunk) == (True, 32)
    expected = torch.softmax(adapt_batch(model, torch.from_numpy(windows), lean(CONV)).logits, dim=1)
    np.testing.assert_allclose(engine.run(windows).adapted_probabilities, expected, atol=1e-5)


def test_the_manifest_names_the_sampling_of_the_training_and_leaves_out_what_is_unknown(tmp_path: Path) -> None:
    sampled = build(tmp_path / "sampled", sampling_rate_hz=52.0, step_samples=26).manifest
    assert (sampled.sampling_rate_hz, sampled.step_samples) == (52.0, 26)
    written = json.loads((tmp_path / "sampled" / "manifest.json").read_bytes())
    plain = json.loads(parts()["manifest.json"])
    assert set(written) - set(plain) == {"sampling_rate_hz", "step_samples"}
    for wrong in ({"sampling_rate_hz": 0.0}, {"sampling_rate_hz": float("inf")}, {"step_samples": 0}):
        with pytest.raises(ContractError, match=next(iter(wrong))):
            build(tmp_path / "wrong", **wrong)


def test_a_network_for_single_rows_makes_a_bundle_as_well(tmp_path: Path) -> None:
    model, calibration = settled(MLP)
    names = tuple(f"f{index}" for index in range(11))
    bundle = build(
        tmp_path / "bundle", model=model, calibration=calibration, settings=lean(MLP), channel_names=names,
        class_names=("a", "b", "c"), canary_windows=windows_for(MLP, 4),
    )  # fmt: skip
    assert not bundle.engine().run(windows_for(MLP, 4)).gain.any()


def test_the_same_model_gives_the_same_digest_and_is_not_written_twice(tmp_path: Path) -> None:
    first = build(tmp_path / "one")
    before = (tmp_path / "one" / "manifest.json").stat().st_mtime_ns
    assert build(tmp_path / "two").digest == build(tmp_path / "one").digest == first.digest
    assert (tmp_path / "one" / "manifest.json").stat().st_mtime_ns == before


def test_a_folder_that_holds_something_else_is_never_overwritten(tmp_path: Path) -> None:
    build(tmp_path / "bundle")
    with pytest.raises(ContractError, match="expected a new folder"):
        build(tmp_path / "bundle", training={"seed": 4})
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("empty", "file", "link"):
        with pytest.raises(ContractError, match="expected a new folder"):
            build(tmp_path / name)
    assert (tmp_path / "file").read_text() == "precious"


def test_a_bundle_without_canary_windows_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one held-out"):
        build(tmp_path / "bundle", canary_windows=windows_for(CONV, 0))


@pytest.mark.parametrize("names", [("x", "y"), ("x", "y", "y"), ("x", "y", ""), ("x", "y", "z" * 201)])
def test_names_that_do_not_fit_the_network_are_refused_and_nothing_is_written(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    with pytest.raises(ContractError, match=r"manifest.json: (number of channel names|channel_names)"):
        build(tmp_path / "bundle", channel_names=names)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("broken", ["fsync", "rename"])
def test_a_failure_while_writing_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os if broken == "fsync" else Path, broken, fail)
    with pytest.raises(OSError, match="No space"):
        write_bundle(tmp_path / "bundle", parts()["manifest.json"], {name: parts()[name] for name in PART_FILES})
    assert not list(tmp_path.iterdir())


def test_an_interrupt_while_writing_leaves_no_folder_of_that_name(tmp_path: Path) -> None:
    def die(unfinished: Path) -> None:
        assert sorted(path.name for path in unfinished.iterdir()) == sorted(FILES)
        assert not (tmp_path / "bundle").exists()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "bundle", parts(), check=die)
    assert not (tmp_path / "bundle").exists()


def test_parts_that_would_be_refused_on_reading_are_not_written(tmp_path: Path) -> None:
    wrong = {name: parts()[name] for name in PART_FILES} | {"source.onnx": b"other"}
    with pytest.raises(ContractError, match=r"source.onnx: expected \d+ bytes, found 5"):
        write_bundle(tmp_path / "bundle", parts()["manifest.json"], wrong)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ContractError, match=f"missing \\['{name}'\\]"):
        read_bundle(folder)


def test_an_unknown_file_is_refused_and_a_signature_has_its_place(folder: Path) -> None:
    (folder / "manifest.sig").write_bytes(b"later")
    read_bundle(folder)
    (folder / "model.pkl").write_bytes(b"")
    with pytest.raises(ContractError, match=r"unknown \['model.pkl'\]"):
        read_bundle(folder)


def test_a_part_that_only_newer_versions_open_is_checked_and_left_alone(folder: Path) -> None:
    extra = b"statistics of recent windows"
    entry = {"sha256": hashlib.sha256(extra).hexdigest(), "size_bytes": len(extra)}
    before = read_bundle(folder)
    forge_manifest(folder, _set("files", "recent.safetensors", to=entry))
    with pytest.raises(ContractError, match=r"missing \['recent.safetensors'\]"):
        read_bundle(folder)
    (folder / "recent.safetensors").write_bytes(extra)
    assert read_bundle(folder).source_graph == before.source_graph
    (folder / "recent.safetensors").write_bytes(extra[::-1])
    with pytest.raises(ContractError, match=r"recent\.safetensors: expected"):
        read_bundle(folder)


def test_no_folder_at_all_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "nothing", tmp_path / "file"):
        with pytest.raises(ContractError, match="expected a folder"):
            read_bundle(path)


@pytest.mark.parametrize("name", FILES)
def test_links_pipes_and_folders_in_place_of_a_file_are_refused(folder: Path, tmp_path: Path, name: str) -> None:
    kept = tmp_path / "kept"
    shutil.move(folder / name, kept)
    (folder / name).symlink_to(kept)
    with pytest.raises(ContractError, match=f"{name}: expected a readable regular file"):
        read_bundle(folder)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(ContractError, match=f"{name}: expected a regular file"):
        read_bundle(folder)
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(ContractError, match=f"{name}: expected a re"):
        read_bundle(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_too_large_is_refused_before_it_is_read(folder: Path, name: str) -> None:
    os.truncate(folder / name, 2**40)  # sparse: takes no room
    with pytest.raises(ContractError, match=f"{name}: expected at most [0-9]+ bytes, found 1099511627776"):
        read_bundle(folder)


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_bundle_with_a_flipped_bit_or_a_cut_is_refused(folder: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(FILES))
    original = parts()[name]
    place = data.draw(st.integers(0, len(original) - 1))
    if data.draw(st.booleans()):
        bit = 1 << data.draw(st.integers(0, 7))
        damaged = original[:place] + bytes([original[place] ^ bit]) + original[place + 1 :]
    else:
        damaged = original[:place]
    (folder / name).write_bytes(damaged)
    try:
        with pytest.raises(ContractError):
            read_bundle(folder)
    finally:
        (folder / name).write_bytes(original)


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_tensor_file_is_read_right_or_refused(data: st.DataObject) -> None:
    content = bytearray(save({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2, np.float32)}))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    for damaged in (bytes(content), bytes(content[:cut])):
        try:
            tensors = read_tensors("f", damaged, {"a": (2, 3), "b": (2,)})
        except ContractError:
            continue
        assert [tensors[name].shape for name in ("a", "b")] == [(2, 3), (2,)]


def test_a_wrong_tensor_is_named_with_what_was_expected(folder: Path) -> None:
    good = load(parts()["weights.safetensors"])
    bias = good["head.bias"]
    cases: tuple[tuple[dict[str, np.ndarray], str], ...] = (
        ({**good, "extra": bias}, r"missing \[\], unknown \['extra'\]"),
        ({name: value for name, value in good.items() if name != "head.bias"}, r"missing \['head.bias'\]"),
        ({**good, "head.bias": bias.astype(np.float64)}, "head.bias: expected dtype F32, found 'F64'"),
        ({**good, "head.bias": bias[:3]}, r"head.bias: expected shape \(4,\), found \[3\]"),
        ({**good, "head.bias": bias[None]}, r"head.bias: expected shape \(4,\), found \[1, 4\]"),
        ({**good, "head.bias": bias * np.float32(np.nan)}, "head.bias: expected finite values"),
        ({**good, "head.bias": bias + np.float32(np.inf)}, "head.bias: expected finite values"),
        ({**good, "scaling.std": good["scaling.std"] * 0}, "scaling.std: expected values above 0, found 0.0"),
        ({**good, "blocks.1.norm.running_var": -np.ones(7, np.float32)}, "running_var: expected values of at least 0"),
    )
    for tensors, message in cases:
        forge(folder, "weights.safetensors", save(tensors))
        with pytest.raises(ContractError, match=f"weights.safetensors: .*{message}"):
            read_bundle(folder)


def test_calibration_that_would_divide_by_zero_is_refused(folder: Path) -> None:
    good = load(parts()["reference.safetensors"])
    for name in ("log_variance_variance_0", "mean_quantile", "layer_variance_quantile"):
        forge(folder, "reference.safetensors", save({**good, name: np.zeros_like(good[name])}))
        with pytest.raises(ContractError, match=f"reference.safetensors: {name}: expected values above 0"):
            read_bundle(folder)


def test_canary_outputs_that_do_not_match_its_windows_are_refused(folder: Path) -> None:
    good = load(parts()["canary.safetensors"])
    forge(folder, "canary.safetensors", save({**good, "magnitude": good["magnitude"][:3]}))
    with pytest.raises(ContractError, match="as many outputs as windows"):
        read_bundle(folder)
    forge(folder, "canary.safetensors", save({name: value[:0] for name, value in good.items()}))
    with pytest.raises(ContractError, match="expected shape"):
        read_bundle(folder)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"[" * 100_000, "expected a JSON header"),
        (b'{"a":' * 100_000, "expected a JSON header"),
        (b'{"a": ' + b"9" * 100_000 + b"}", "expected a JSON header"),
        (b"\xff\xfe", "expected a JSON header"),
        (b"[]", "at most 4096 tensors"),
        (json.dumps({str(i): 0 for i in range(4097)}).encode(), "at most 4096 tensors"),
        (b" " * (1024 * 1024 + 1), "a header of at most 1048576 bytes"),
    ],
    ids=["deep list", "deep object", "huge integer", "no text", "no object", "many tensors", "long header"],
)
def test_a_hostile_tensor_header_is_refused(folder: Path, header: bytes, message: str) -> None:
    forge(folder, "weights.safetensors", struct.pack("<Q", len(header)) + header)
    with pytest.raises(ContractError, match=f"weights.safetensors: expected .*{message}|{message}"):
        read_bundle(folder)


def test_a_header_longer_than_its_file_is_refused(folder: Path) -> None:
    for content in (struct.pack("<Q", 2**63) + b"{}", b"\x01\x02"):
        forge(folder, "weights.safetensors", content)
        with pytest.raises(ContractError, match=r"weights.safetensors: expected a header of"):
            read_bundle(folder)


@pytest.mark.parametrize(
    "raw",
    [b"", b"[" * 100_000, b'{"a":' * 100_000, b"\xff" * 10, b"null", b"NaN", b"9" * 100_000],
    ids=["empty", "deep list", "deep object", "no text", "null", "NaN", "huge integer"],
)
def test_a_hostile_manifest_is_refused(folder: Path, raw: bytes) -> None:
    (folder / "manifest.json").write_bytes(raw)
    with pytest.raises(ContractError, match=r"manifest.json: "):
        read_bundle(folder)


def _set(*path: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("code_contract_version", to=CODE_CONTRACT_VERSION + 1), "update acclimate to use this bundle"),
        (_set("schema_version", to=2), "schema_version: "),
        (_set("kind", to="generator"), "kind: "),
        (_set("must_understand", to=["surprise"]), "understand surprise"),
        (_set("network", "widths", to=[6, 8]), "network_sha256"),
        (_set("network", "kernels", to=[5, 4]), "kernels: expected odd sizes"),
        (_set("network", "channels", to="3"), "network.channels: "),
        (_set("network", "length", to=10**9), "network.length: "),
        (_set("lean", "tau", to=7.0), "tau: expected 0 to 1"),
        (_set("lean", "layers", to=[True]), "lean layers: expected 2, found 1"),
        (_set("scaling", "limit", to=5.0), "scaling limit"),
        (_set("compatibility", "layer_names", to=["a", "b"]), "compatibility layer_names"),
        (_set("compatibility", "layer_widths", to=[6, 8]), "compatibility layer_widths"),
        (_set("class_names", to=["0", "1", "2"]), "number of class names"),
        (_set("training", to={"nested": {}}), "training.nested"),
        (_set("files", "source.onnx", "sha256", to="0" * 63), "files.source.onnx.sha256"),
        (_set("files", "../outside", to={"sha256": "0" * 64, "size_bytes": 1}), "files"),
        (lambda document: document["files"].pop("source.onnx"), "files: expected"),
    ],
)
def test_a_manifest_that_is_newer_or_contradicts_itself_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    forge_manifest(folder, change)
    with pytest.raises(ContractError, match=f"manifest.json: .*{message}"):
        read_bundle(folder)


def test_a_manifest_written_in_another_form_is_refused(folder: Path) -> None:
    raw = parts()["manifest.json"]
    for other in (raw + b"\n", json.dumps(json.loads(raw)).encode(), raw.replace(b"{", b'{\n "kind": "source",', 1)):
        (folder / "manifest.json").write_bytes(other)
        with pytest.raises(ContractError, match="expected canonical JSON"):
            read_bundle(folder)


def test_graphs_that_do_not_compute_what_was_recorded_are_refused_by_the_self_test(folder: Path) -> None:
    good = load(parts()["canary.safetensors"])
    forge(folder, "canary.safetensors", save({**good, "windows": good["windows"] * 2}))
    with pytest.raises(ContractError, match="canary source_probabilities: expected outputs within"):
        read_bundle(folder).engine()
    forge(folder, "source.onnx", b"no graph")
    with pytest.raises(ContractError, match="source graph: expected a graph"):
        read_bundle(folder).engine()


def test_a_bundle_is_read_and_run_where_torch_and_onnx_cannot_be_imported(folder: Path) -> None:
    program = f"""
import sys
for name in ("torch", "onnx"):
    sys.modules[name] = None  # importing it raises ImportError
from pathlib import Path
from acclimate.registry.bundles.source_bundle import read_bundle
bundle = read_bundle(Path({str(folder)!r}))
engine = bundle.engine()
print(bundle.digest, engine.batch_exact, engine.run(bundle.canary["windows"]).magnitude.shape)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    digest = hashlib.sha256(parts()["manifest.json"]).hexdigest()
    assert result.stdout.split(maxsplit=2) == [digest, "True", "(5,)\n"]
