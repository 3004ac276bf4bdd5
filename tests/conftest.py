"""Fixtures of the whole test session: the real Kafka that tests share."""

import os
from collections.abc import Iterator

import pytest

from infra.broker import LocalKafka


def pytest_configure(config: pytest.Config) -> None:
    # kafka-python 3.0.12 reads its schemas by functions that Python 3.11 calls deprecated and 3.13 does not.
    config.addinivalue_line("filterwarnings", r"ignore:(read|open)_text is deprecated:DeprecationWarning")


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
