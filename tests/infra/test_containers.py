"""The container files build exact versions, run without root and tell whether they are healthy."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from acclimate.infra.kafka_jars import KAFKA_VERSION

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
WHOLE: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = WHOLE["services"]
DOCKERFILES = sorted((ROOT / "infra" / "docker").glob("*.Dockerfile"))
# name:1.2.3 with an optional suffix, never `latest`, a bare name or only part of a version; PostgreSQL's have two parts
EXACT = re.compile(r"([a-z0-9./-]+:v?\d+\.\d+\.\d+([.-][a-z0-9.]+)*|postgres:\d+\.\d+)")


def test_the_compose_file_follows_the_compose_specification() -> None:
    command = Path(sys.executable).with_name("check-jsonschema")
    checked = subprocess.run(
        [command, "--builtin-schema", "vendor.compose-spec", COMPOSE], capture_output=True, text=True, timeout=60
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_an_exact_version_a_health_check_and_no_root(name: str) -> None:
    service = SERVICES[name]
    assert EXACT.fullmatch(service["image"])
    assert service["healthcheck"]["test"][0] == "CMD"
    user, group = service["user"].split(":")
    assert int(user) > 0
    assert int(group) > 0
    assert service["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_published_port_is_reachable_from_this_machine_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


def test_the_container_and_the_local_broker_are_the_same_kafka() -> None:
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_a_container_file_starts_from_an_exact_version_and_ends_without_root(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    images = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert images
    assert all(EXACT.fullmatch(image) for image in images)
    [user] = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert int(user.split(":")[0]) > 0


@pytest.mark.parametrize("name", [name for name, service in SERVICES.items() if "build" in service])
def test_a_built_service_names_an_existing_container_file_whose_sources_exist(name: str) -> None:
    path = ROOT / SERVICES[name]["build"]["dockerfile"]
    copied = [line.split()[1:-1] for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("COPY ")]
    for source in (s for sources in copied if not sources[0].startswith("--from") for s in sources):
        assert (ROOT / source).exists(), f"{path.name} copies {source}, which is not there"


def test_passwords_and_private_keys_are_secrets_and_never_in_the_environment() -> None:
    named = {secret for service in SERVICES.values() for secret in service.get("secrets", [])}
    assert named == set(WHOLE["secrets"])
    assert all(secret["file"].startswith("./secrets/") for secret in WHOLE["secrets"].values())
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {"secrets/", "keys/", ".acclimate/"} <= set(ignored)
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            secret = re.search("PASSWORD|SECRET|KEY", name)
            assert not secret or str(value).startswith("/run/secrets/"), name


def test_a_container_sees_no_more_of_the_keys_than_it_needs() -> None:
    seen = {
        name: {v["source"].rpartition("/")[2] for v in service.get("volumes", []) if isinstance(v, dict)}
        for name, service in SERVICES.items()
    }
    assert seen["worker"] == seen["controller"] == {"trust.json"}
    assert {name for name, service in SERVICES.items() if "release_key" in service.get("secrets", [])} == {"controller"}


def test_database_and_store_are_reached_by_mlflow_alone() -> None:
    assert WHOLE["networks"]["catalogue"]["internal"] is True
    for name in ("postgres", "s3"):
        assert SERVICES[name]["networks"] == ["catalogue"]
        assert "ports" not in SERVICES[name]
    assert {name for name, service in SERVICES.items() if "catalogue" in service.get("networks", [])} == {
        "postgres",
        "s3",
        "mlflow",
    }


@pytest.mark.parametrize("path", sorted((ROOT / "infra" / "docker").glob("*.sh")), ids=lambda path: path.stem)
def test_a_start_script_is_correct_shell_that_ends_at_the_first_error(path: Path) -> None:
    subprocess.run(["/bin/sh", "-n", path], check=True)
    text = path.read_text(encoding="utf-8")
    assert "\nset -eu\n" in text
    assert "\nexec " in text  # signals reach the program itself
