"""Fixtures of the whole test session: the real Kafka and the real MLflow server that tests share."""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from acclimate.infra.broker import LocalKafka
from acclimate.infra.mlflow_server import start_mlflow, stop_mlflow

# Networks of tests are tiny, and two test processes share the cores: more threads than one wait for each other and
# make a forward pass six times as expensive. Child processes get this too.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@dataclass(frozen=True)
class MlflowServer:
    """Where it answers, and the folder of its store."""

    address: str
    folder: Path


def pytest_configure(config: pytest.Config) -> None:
    # kafka-python 3.0.12 reads its schemas by functions that Python 3.11 calls deprecated and 3.13 does not.
    config.addinivalue_line("filterwarnings", r"ignore:(read|open)_text is deprecated:DeprecationWarning")


def pytest_runtest_setup() -> None:
    # A command that ran in this process may have asked for more threads.
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """Give the bootstrap address of one broker, started once, or of the one that ACCLIMATE_BOOTSTRAP names."""
    given = os.environ.get("ACCLIMATE_BOOTSTRAP")
    if given:
        yield given
        return
    with LocalKafka() as broker:
        yield broker.bootstrap


@pytest.fixture(scope="session")
def kafka3() -> Iterator[LocalKafka]:
    """Give three nodes to kill and restart; whoever stops one starts it again."""
    # A dead leader is noticed after 3 s instead of 9.
    noticed_soon = {"broker.session.timeout.ms": "3000", "broker.heartbeat.interval.ms": "500"}
    with LocalKafka(3, properties=noticed_soon) as brokers:
        yield brokers


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """Give a server of MLflow, started once."""
    folder = tmp_path_factory.mktemp("mlflow-server")
    status, _ = start_mlflow(folder, 0)
    assert status.address is not None
    try:
        yield MlflowServer(status.address, folder)
    finally:
        stop_mlflow(folder)
