"""Only the jars of the lock file are run, whatever lies in the cache and whoever downloads at the same time."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from acclimate.infra.errors import BrokerError
from acclimate.infra.kafka_jars import KAFKA_VERSION, ensure_jars, read_lock

JARS = {"org.example:one:1.0": b"first jar" * 1000, "org.example:two:2.0": b"second jar" * 1000}
ENSURE = """
import sys
from pathlib import Path
from acclimate.infra.kafka_jars import ensure_jars
print(len(ensure_jars(Path(sys.argv[1]), Path(sys.argv[2]))))
"""


class Mirror:
    """A Maven repository on this machine that counts what is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requested: list[str] = []
        for coordinate, content in JARS.items():
            path = self.path(coordinate)
            path.parent.mkdir(parents=True)
            path.write_bytes(content)
        mirror = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *arguments: object) -> None:
                super().__init__(*arguments, directory=str(folder))  # type: ignore[arg-type]

            def log_message(self, *arguments: object) -> None:
                if self.command == "GET" and self.path.endswith(".jar"):
                    mirror.requested.append(self.path.rpartition("/")[2])

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def path(self, coordinate: str) -> Path:
        group, artifact, version = coordinate.split(":")
        return self.folder / group.replace(".", "/") / artifact / version / f"{artifact}-{version}.jar"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def lock_file(tmp_path: Path) -> Path:
    path = tmp_path / "lock.json"
    jars = [
        {"coordinate": c, "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for c, content in JARS.items()
    ]
    path.write_text(json.dumps({"jars": jars}))
    return path


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    mirror = Mirror(tmp_path / "mirror")
    configuration = tmp_path / "jgo.conf"
    configuration.write_text(f"[repositories]\ncentral = http://127.0.0.1:{mirror.server.server_address[1]}\n")
    monkeypatch.setenv("JGO_CONFIG_FILE", str(configuration))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield mirror
    mirror.close()


def test_the_lock_file_names_kafka_and_gives_every_jar_one_checksum() -> None:
    jars = read_lock()
    assert f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}" in {jar.coordinate for jar in jars}
    assert len({jar.file_name for jar in jars}) == len(jars)
    assert all(len(bytes.fromhex(jar.sha256)) == 32 and jar.size_bytes > 0 for jar in jars)


def test_two_processes_that_download_at_once_fetch_each_jar_once_and_whole(
    tmp_path: Path, lock_file: Path, mirror: Mirror
) -> None:
    command = [sys.executable, "-W", "error", "-c", ENSURE, str(tmp_path / "cache"), str(lock_file)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=60)[0] for process in both] == ["2\n", "2\n"]
    assert sorted(mirror.requested) == ["one-1.0.jar", "two-2.0.jar"]
    assert {path.name for path in (tmp_path / "cache").glob("*")} == {"one-1.0.jar", "two-2.0.jar", ".download.lock"}


def test_a_jar_tampered_with_in_the_cache_is_refused_and_left_alone(
    tmp_path: Path, lock_file: Path, mirror: Mirror
) -> None:
    one, _ = ensure_jars(tmp_path / "cache", lock_file)
    changed = bytearray(one.read_bytes())
    changed[100] ^= 1
    one.write_bytes(changed)
    with pytest.raises(BrokerError, match=r"one-1\.0\.jar is not the jar of the lock file: expected SHA-256 .* found"):
        ensure_jars(tmp_path / "cache", lock_file)
    assert one.read_bytes() == changed
    assert len(mirror.requested) == 2


def test_a_repository_that_serves_another_jar_gets_nothing_into_the_cache(
    tmp_path: Path, lock_file: Path, mirror: Mirror
) -> None:
    mirror.path("org.example:two:2.0").write_bytes(b"something else")
    with pytest.raises(BrokerError, match="is not the jar of the lock file"):
        ensure_jars(tmp_path / "cache", lock_file)
    assert not (tmp_path / "cache" / "two-2.0.jar").exists()
    assert not list((tmp_path / "cache").glob(".staging-*"))


def test_a_jar_that_cannot_be_downloaded_says_from_where_and_what_to_check(
    tmp_path: Path, lock_file: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("acclimate.infra.kafka_jars.ATTEMPTS", 1)
    mirror.path("org.example:one:1.0").unlink()
    with pytest.raises(BrokerError, match=r"cannot download org\.example:one:1\.0 from http://127.*Check the network"):
        ensure_jars(tmp_path / "cache", lock_file)


@pytest.mark.parametrize("content", ["", "[]", '{"jars": [{"name": "x"}]}'])
def test_a_damaged_lock_file_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "lock.json"
    path.write_text(content)
    with pytest.raises(BrokerError, match=f"cannot read Kafka's lock file {path}"):
        read_lock(path)


def test_the_cache_folder_follows_xdg_only_when_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from acclimate.infra.kafka_jars import jar_folder

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert jar_folder() == tmp_path / "acclimate" / f"kafka-{KAFKA_VERSION}"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / os.sep.join(["a", "home"])))
    assert jar_folder() == tmp_path / "a" / "home" / ".cache" / "acclimate" / f"kafka-{KAFKA_VERSION}"
