"""Fixtures of the whole test session: the real Kafka that tests share."""

import os
from collections.abc import Iterator

import pytest

from infra.broker import LocalKafka


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
    with LocalKafka(3, properties={"broker.session.timeout.ms": "6000"}) as brokers:
        yield brokers
