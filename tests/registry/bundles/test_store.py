"""Bundles that come over the wire: whole, signed and fitting, or not at all; S1, S2 and S6 of the list of faults."""

import functools
import hashlib
import json
import math
import random
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from acclimate.adaptation.errors import ContractError
from acclimate.registry.bundles.manifest import PART_FILES, FileEntry, Manifest, sealed, unsealed
from acclimate.registry.bundles.member import Member
from acclimate.registry.bundles.store import install_bundle, prune_bundles
from acclimate.registry.trust.trust import Trust, read_trust
from tests.registry.bundles.test_source_bundle import parts
from tests.support.signed import digest, key, sign_bundle, trust

FLIPS, CUTS = 1000, 100


@functools.cache
def signed() -> tuple[Member, dict[str, bytes]]:
    """Return a good bundle as a release names it, and its files by digest."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in parts().items():
            (Path(folder) / name).write_bytes(content)
        return sign_bundle(Path(folder))


def believed(**changes: object) -> Trust:
    return read_trust(trust(**changes))  # type: ignore[arg-type]


def install(store: Path, files: dict[str, bytes], of: Member | None = None, by: Trust | None = None) -> None:
    install_bundle(store, "source", of or signed()[0], by or believed(), files.__getitem__)


def test_a_good_bundle_is_installed_once(tmp_path: Path):
    bundle, files = signed()
    install(tmp_path, files)
    assert [path.name for path in tmp_path.iterdir()] == [bundle.digest]

    def never(sha: str) -> bytes:
        raise AssertionError("it is there already")

    assert install_bundle(tmp_path, "source", bundle, believed(), never).digest == bundle.digest


def test_a_bundle_that_was_damaged_on_disk_is_fetched_anew(tmp_path: Path):
    bundle, files = signed()
    install(tmp_path, files)
    (tmp_path / bundle.digest / "source.onnx").write_bytes(b"gone")
    install(tmp_path, files)
    assert (tmp_path / bundle.digest / "source.onnx").read_bytes() == files[bundle.files["source.onnx"]]


def test_a_release_that_does_not_fit_takes_nothing_away_from_what_runs(tmp_path: Path):
    bundle, files = signed()
    install(tmp_path, files)
    before = {path.name: path.read_bytes() for path in (tmp_path / bundle.digest).iterdir()}
    revoked = believed(version=2, keys=(key("gate", "fresh"),), revoked=(key("gate").key_id,))
    for of, by in ((bundle.model_copy(update={"network_sha256": digest("other")}), believed()), (bundle, revoked)):
        with pytest.raises(ContractError):
            install(tmp_path, files, of, by)
        assert {path.name: path.read_bytes() for path in (tmp_path / bundle.digest).iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == [bundle.digest]


def test_what_a_crash_has_left_and_what_is_not_kept_goes(tmp_path: Path):
    bundle, files = signed()
    install(tmp_path, files)
    (tmp_path / f".{digest('x')}.abc").mkdir()
    (tmp_path / digest("old")).mkdir()
    prune_bundles(tmp_path, {bundle.digest})
    assert [path.name for path in tmp_path.iterdir()] == [bundle.digest]


def test_no_flipped_bit_and_no_truncation_is_installed_and_the_old_bundle_stays(tmp_path: Path):
    seed = random.SystemRandom().randrange(2**32)
    draw = random.Random(seed)
    bundle, files = signed()
    (tmp_path / digest("the last good one")).mkdir()
    refused = 0
    for number in range(FLIPS + CUTS):
        sha = draw.choice(sorted(files))
        content = bytearray(files[sha])
        if number < FLIPS:
            place = draw.randrange(8 * len(content))
            content[place // 8] ^= 1 << place % 8
        else:
            del content[draw.randrange(len(content)) :]
        with pytest.raises(ContractError):
            install(tmp_path, files | {sha: bytes(content)})
        refused += 1
        assert [path.name for path in tmp_path.iterdir()] == [digest("the last good one")], f"seed {seed}"
    print(f"S1: {refused} of {FLIPS + CUTS} damaged artifacts refused, seed {seed}")
    with pytest.raises(ContractError):
        install(tmp_path, files | {bundle.digest: files[bundle.digest] + b"\n"})


@pytest.mark.parametrize("by", ["release", "approver", "stranger"])
def test_a_manifest_that_no_gate_signed_is_refused(tmp_path: Path, by: str):
    folder = tmp_path / "made"
    folder.mkdir()
    for name, content in parts().items():
        (folder / name).write_bytes(content)
    forged, files = sign_bundle(folder, signed_by=by)
    with pytest.raises(ContractError, match="signature of a gate"):
        install(tmp_path / "store", files, forged)


def test_a_revoked_gate_is_not_believed_and_one_past_its_window_is(tmp_path: Path):
    _, files = signed()
    gone = believed(version=2, keys=(key("gate", "fresh"),), revoked=(key("gate").key_id,))
    with pytest.raises(ContractError, match="signature of a gate"):
        install(tmp_path, files, by=gone)
    install(tmp_path, files, by=believed(keys=(key("gate", until_ms=1), key("gate", "fresh"))))


def test_files_of_two_bundles_are_never_mixed(tmp_path: Path):
    bundle, files = signed()
    other = load(files[bundle.files["weights.safetensors"]])
    other["head.bias"] = other["head.bias"] + 1
    content = save(other)
    sha = _sha(content)
    mixed = bundle.model_copy(update={"files": bundle.files | {"weights.safetensors": sha}})
    with pytest.raises(ContractError, match="weights"):
        install(tmp_path, files | {sha: content}, mixed)
    swapped = bundle.model_copy(update={"files": bundle.files | {"source.onnx": bundle.files["adapted.onnx"]}})
    with pytest.raises(ContractError, match=r"source\.onnx"):
        install(tmp_path, files, swapped)
    for wrong in ({"source_sha256": digest("another source")}, {"network_sha256": digest("another backbone")}):
        with pytest.raises(ContractError, match="made for"):
            install(tmp_path, files, bundle.model_copy(update=wrong))
    assert list(tmp_path.iterdir()) == []


# S2: whoever makes these has the gate's key, so that every digest and signature is right.


def _tensors(name: str, change: Callable[[dict[str, np.ndarray]], None]) -> Callable[[dict[str, bytes]], None]:
    def apply(files: dict[str, bytes]) -> None:
        tensors = {key: value.copy() for key, value in load(files[name]).items()}
        change(tensors)
        files[name] = save(tensors)

    return apply


def _content(name: str, content: Callable[[], bytes]) -> Callable[[dict[str, bytes]], None]:
    return lambda files: files.__setitem__(name, content())


def _header(header: dict[str, object] | bytes, tail: bytes = b"\0" * 64) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tail


def _entry(shape: list[int], start: int, end: int) -> dict[str, object]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}


def _bytes(entry: dict[str, Any]) -> int:
    return 4 * math.prod(entry["shape"])


def _rewrite(files: dict[str, bytes], change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change what the header of the weights says of every tensor; their names stay."""
    size = int.from_bytes(files[W][:8], "little")
    header = json.loads(files[W][8 : 8 + size])
    changed = {name: change(entry) if name != "__metadata__" else entry for name, entry in header.items()}
    files[W] = _header(changed, files[W][8 + size :])


def _zip_bomb() -> bytes:
    import io
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("data.pkl", b"\0" * 50_000_000)
    return buffer.getvalue()


def _pickle_that_writes() -> bytes:
    return b"cos\nsystem\n(S'touch code-ran'\ntR."


W = "weights.safetensors"
ATTACKS: dict[str, Callable[[dict[str, bytes]], None]] = {
    "pickle in place of weights": _content(W, _pickle_that_writes),
    "pickle in place of a graph": _content("source.onnx", _pickle_that_writes),
    "zip bomb in place of weights": _content(W, _zip_bomb),
    "zip bomb in place of a graph": _content("adapted.onnx", _zip_bomb),
    "a header of two gigabytes": _content(W, lambda: struct.pack("<Q", 2**31) + b"{}"),
    "a header of 2^63 bytes": _content(W, lambda: struct.pack("<Q", 2**63) + b"{}"),
    "a header of 100,000 names": _content(W, lambda: _header({f"t{i}": _entry([1], 0, 4) for i in range(100_000)})),
    "a header nested 100,000 deep": _content(W, lambda: _header(b"[" * 100_000 + b"]" * 100_000)),
    "overlapping tensors": lambda files: _rewrite(files, lambda e: e | {"data_offsets": [0, _bytes(e)]}),
    "tensors of no size": lambda files: _rewrite(files, lambda e: e | {"shape": [0], "data_offsets": [0, 0]}),
    "a shape beyond 64 bits": lambda files: _rewrite(files, lambda e: e | {"shape": [2**40] * len(e["shape"])}),
    "offsets beyond the file": lambda files: _rewrite(files, lambda e: e | {"data_offsets": [2**40, 2**40 + 4]}),
    "NaN weights": _tensors(W, lambda t: t["head.weight"].fill(np.nan)),
    "infinite weights": _tensors(W, lambda t: t["head.weight"].fill(np.inf)),
    "weights of absurd scale": _tensors(W, lambda t: t["head.weight"].fill(1e30)),
    "negative variances": _tensors(W, lambda t: t["blocks.0.norm.running_var"].fill(-1.0)),
    "a tensor more": _tensors(W, lambda t: t.update(more=np.zeros(3, np.float32))),
    "a tensor less": _tensors(W, lambda t: t.pop("head.bias")),
    "a scale of zero": _tensors("reference.safetensors", lambda t: t["mean_quantile"].fill(0.0)),
    "canary answers that do not come true": _tensors(
        "canary.safetensors", lambda t: t["source_probabilities"].fill(0.25)
    ),
    "a graph that reads a file": lambda files: files.__setitem__("source.onnx", _graph_with_external_data()),
}


def _graph_with_external_data() -> bytes:
    import onnx
    from onnx import TensorProto, helper

    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    node = helper.make_node("Identity", ["w"], ["probabilities"])
    out = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [4])
    graph: onnx.ModelProto = helper.make_model(helper.make_graph([node], "g", [], [out], [tensor]))
    content: bytes = graph.SerializeToString()
    return content


def _attacks(target: Path) -> None:
    """Write every attack as a folder, its manifest in agreement with its files, for `_refuse_all`."""
    for number, (_, attack) in enumerate(ATTACKS.items()):
        folder = target / f"{number:02}"
        folder.mkdir()
        files = dict(parts())
        attack(files)
        manifest = unsealed(Manifest, files["manifest.json"])
        entries = {n: FileEntry(sha256=_sha(files[n]), size_bytes=len(files[n])) for n in PART_FILES}
        files["manifest.json"] = sealed(manifest.model_copy(update={"files": entries}))
        for name, content in files.items():
            (folder / name).write_bytes(content)


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


_REFUSE = """
import hashlib, json, sys, time
from pathlib import Path
from acclimate.adaptation.errors import ContractError
from acclimate.registry.releases.release import Member
from acclimate.registry.bundles.store import install_bundle
from acclimate.registry.trust.trust import read_trust
attacks, believed = Path(sys.argv[1]), read_trust(Path(sys.argv[2]).read_bytes())
for folder in sorted(attacks.iterdir()):
    contents = {p.name: p.read_bytes() for p in folder.iterdir()}
    files = {n: hashlib.sha256(c).hexdigest() for n, c in contents.items()}
    by_digest = {files[n]: c for n, c in contents.items()}
    member = Member(name="x", version=1, files=files, network_sha256=sys.argv[3], source_sha256=None)
    before = time.monotonic()
    try:
        install_bundle(attacks.parent / "store", "source", member, believed, by_digest.__getitem__).engine()
        refused = ""
    except ContractError as error:
        refused = str(error)
    seconds = time.monotonic() - before
    status = Path("/proc/self/status").read_text()  # not ru_maxrss: that counts the parent before exec as well
    mib = int(status.split("VmHWM:")[1].split()[0]) / 1024
    print(json.dumps([folder.name, refused, seconds, mib]))
"""


def test_no_malicious_artifact_is_installed_runs_code_or_takes_much_memory(tmp_path: Path):
    from acclimate.registry.bundles.any_bundle import manifest_signature
    from tests.support.signed import private

    attacks = tmp_path / "attacks"
    attacks.mkdir()
    _attacks(attacks)
    for folder in attacks.iterdir():
        raw = (folder / "manifest.json").read_bytes()
        (folder / "manifest.sig").write_bytes(manifest_signature(raw, private("gate")))
    (tmp_path / "trust.json").write_text(trust().model_dump_json())
    network = signed()[0].network_sha256
    run = subprocess.run(
        [sys.executable, "-c", _REFUSE, str(attacks), str(tmp_path / "trust.json"), str(network)],
        capture_output=True, text=True, timeout=120, cwd=tmp_path, env={"PATH": ""},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    for (_, refused, seconds, mib), name in zip(lines, ATTACKS, strict=True):
        print(f"S2: {name}: {seconds * 1000:.0f} ms, {mib:.0f} MiB at most so far: {refused[:100]}")
        assert refused, name
        assert mib < 200, name
    assert not list(tmp_path.rglob("code-ran"))


def test_a_link_in_the_store_is_not_followed(tmp_path: Path):
    bundle, files = signed()
    install(tmp_path / "store", files)
    secret = tmp_path / "secret"
    secret.write_bytes(files[bundle.files["source.onnx"]])
    (tmp_path / "store" / bundle.digest / "source.onnx").unlink()
    (tmp_path / "store" / bundle.digest / "source.onnx").symlink_to(secret)
    install(tmp_path / "store", files)
    assert not (tmp_path / "store" / bundle.digest / "source.onnx").is_symlink()
