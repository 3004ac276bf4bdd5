"""Apache Kafka's jars: which ones, with which SHA-256, fetched once and checked at every start.

The lock file beside this module lists each jar by Maven coordinate, size and SHA-256. A missing jar is downloaded (by
jgo, from Maven Central or the repositories of jgo's own configuration) into a staging folder, checked against the lock
and renamed into the cache, so that a half-written or foreign file never gets a jar's name, whatever else downloads at
the same time. A jar that is there but differs is refused, never replaced silently. The user's `~/.m2` is not touched.

`python -m acclimate.infra.kafka_jars` resolves the coordinates anew and rewrites the lock file.
"""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import portalocker
from portalocker import LockFlags

from acclimate.infra.errors import BrokerError

__all__ = ["KAFKA_VERSION", "LOCK_FILE", "Jar", "ensure_jars", "jar_folder", "read_lock", "write_lock"]

KAFKA_VERSION = "4.4.0"
# Kafka's own POM names no logging backend: slf4j-simple writes to stderr, with its level set by a system property.
COORDINATES = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.slf4j:slf4j-simple:1.7.36"
LOCK_FILE = Path(__file__).with_name("kafka.lock.json")
ATTEMPTS = 3
PARALLEL_DOWNLOADS = 8
TIMEOUT_S = 60

Notify = Callable[[str], None]


@dataclass(frozen=True)
class Jar:
    """One line of the lock file."""

    coordinate: str  # group:artifact:version
    size_bytes: int
    sha256: str

    @property
    def file_name(self) -> str:
        """Name the jar as Maven does.

        >>> Jar("org.yaml:snakeyaml:2.5", 1, "").file_name
        'snakeyaml-2.5.jar'
        """
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"


def jar_folder() -> Path:
    """Return the user's cache folder for the jars: `$XDG_CACHE_HOME/acclimate/kafka-VERSION`."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    cache = Path(configured) if os.path.isabs(configured) else Path.home() / ".cache"
    return cache / "acclimate" / f"kafka-{KAFKA_VERSION}"


def read_lock(lock_file: Path = LOCK_FILE) -> list[Jar]:
    """Read the lock file.

    Raises:
        BrokerError: the file is missing or not a lock file.
    """
    try:
        document = json.loads(lock_file.read_text(encoding="utf-8"))
        return [Jar(**line) for line in document["jars"]]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise BrokerError(
            f"cannot read Kafka's lock file {lock_file} ({type(e).__name__}: {e}); restore it from the repository, or "
            "write a new one with `python -m acclimate.infra.kafka_jars`"
        ) from e


def ensure_jars(folder: Path | None = None, lock_file: Path = LOCK_FILE, notify: Notify | None = None) -> list[Path]:
    """Return the paths of all locked jars, downloading what is missing and checking every one.

    Args:
        folder: cache folder; default `jar_folder()`.
        lock_file: what to expect.
        notify: called with one line of text before a download starts.

    Raises:
        BrokerError: a jar differs from the lock file, or cannot be downloaded.
    """
    folder = folder or jar_folder()
    jars = read_lock(lock_file)
    if missing := _missing(jars, folder):
        folder.mkdir(parents=True, exist_ok=True)
        # Only saves a second download of the same files: correctness comes from check-then-rename.
        with (folder / ".download.lock").open("w") as turn:
            portalocker.lock(turn, LockFlags.EXCLUSIVE)
            if missing := _missing(jars, folder):
                if notify is not None:
                    size_mb = sum(jar.size_bytes for jar in missing) / 1e6
                    notify(
                        f"downloading Apache Kafka {KAFKA_VERSION}: {len(missing)} jars, {size_mb:.0f} MB -> {folder}"
                    )
                _download(missing, folder)
    paths = [folder / jar.file_name for jar in jars]
    for jar, path in zip(jars, paths, strict=True):
        _check(jar, path)
    return paths


def write_lock(lock_file: Path = LOCK_FILE) -> list[Jar]:
    """Resolve Kafka's coordinates anew, download every jar and write the lock file.

    The sums are those of the files that the repository serves now over TLS: review the difference before committing it.
    """
    import jgo  # here, not above: it takes 0.8 s to import and is not needed once the jars are there

    with tempfile.TemporaryDirectory() as staging:
        repository = _maven(Path(staging))
        resolved = {f"{a.groupId}:{a.artifactId}:{a.version}" for a in jgo.resolve(COORDINATES)}
        files = _fetch(sorted(resolved), repository)
        jars = [Jar(coordinate, path.stat().st_size, _sha256(path)) for coordinate, path in files]
    document = {"resolved_from": COORDINATES, "jars": [asdict(jar) for jar in jars]}
    lock_file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return jars


def _missing(jars: Iterable[Jar], folder: Path) -> list[Jar]:
    return [jar for jar in jars if not (folder / jar.file_name).exists()]


def _check(jar: Jar, path: Path) -> None:
    found = _sha256(path)
    if found != jar.sha256:
        raise BrokerError(
            f"{path} is not the jar of the lock file: expected SHA-256 {jar.sha256}, found {found}. It was damaged or "
            f"tampered with and is not run; delete it to have {jar.coordinate} downloaded again"
        )


def _download(jars: list[Jar], folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder, prefix=".staging-") as staging:
        files = dict(_fetch([jar.coordinate for jar in jars], _maven(Path(staging))))
        for jar in jars:
            _check(jar, files[jar.coordinate])
            os.replace(files[jar.coordinate], folder / jar.file_name)


def _maven(folder: Path) -> Any:  # jgo.maven.MavenContext; Any because jgo is imported only when needed
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.maven import MavenContext

    configured = GlobalSettings.load().repositories  # a company's mirror, if the user has told jgo about one
    repositories = {"central": MAVEN_CENTRAL_URL} | dict(configured)
    return MavenContext(repo_cache=folder, local_repos=[], remote_repos=repositories, timeout=TIMEOUT_S)


def _fetch(coordinates: list[str], repository: Any) -> list[tuple[str, Path]]:
    def one(coordinate: str) -> tuple[str, Path]:
        group, artifact, version = coordinate.split(":")
        jar = repository.project(group, artifact).at_version(version).artifact()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return coordinate, Path(jar.resolve())
            # requests raises OSError subclasses, jgo RuntimeError (not found, wrong SHA-1)
            except (OSError, RuntimeError) as e:
                Path(jar.cached_path).unlink(missing_ok=True)  # jgo leaves a partial file under the final name
                if attempt == ATTEMPTS:
                    raise BrokerError(
                        f"cannot download {coordinate} from {', '.join(repository.remote_repos.values())}: {e}. Check "
                        "the network and proxy (HTTPS_PROXY, REQUESTS_CA_BUNDLE), or give the address of a running "
                        "Kafka with --bootstrap"
                    ) from e
                time.sleep(attempt)
        raise AssertionError("unreachable: the last attempt returns or raises")

    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        return list(pool.map(one, coordinates))


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


if __name__ == "__main__":
    locked = write_lock()
    print(f"{LOCK_FILE}: {len(locked)} jars, {sum(jar.size_bytes for jar in locked) / 1e6:.1f} MB")
