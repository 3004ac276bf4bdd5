"""One settings object opens TLS + SCRAM + client certificate listeners for every client we use."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import NewTopic

from acclimate.infra.broker import BrokerSecurity, LocalKafka
from acclimate.infra.settings import PREFIX, Settings
from acclimate.streams.wire.connect import aiokafka_options, kafka_python_options
from tests.infra.certificates import make_authority

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("broker-security")]

TOPIC = "checked"

FAUST_READER = """
import asyncio, faust, tempfile
from acclimate.infra.settings import Settings
from acclimate.streams.wire.connect import faust_broker, faust_credentials

settings = Settings()
folder = tempfile.TemporaryDirectory()
app = faust.App("reader", broker=faust_broker(settings), broker_credentials=faust_credentials(settings),
                datadir=folder.name, store="memory://",
                consumer_auto_offset_reset="earliest", topic_disable_leader=True, web_enabled=False)
got = asyncio.Event()

@app.agent(app.topic("checked", value_type=bytes, value_serializer="raw", partitions=1))
async def read(stream):
    async for value in stream:
        print(value.decode(), flush=True)
        got.set()

async def main():
    app.finalize()
    await app.start()
    await got.wait()
    await app.stop()

asyncio.run(main())
"""

REFUSED_CLIENTS = """
import asyncio, json, logging, sys
import aiokafka, aiokafka.errors, kafka, kafka.errors
from acclimate.infra.settings import Settings
from acclimate.streams.wire.connect import aiokafka_options, kafka_python_options

async def connect(settings):
    producer = aiokafka.AIOKafkaProducer(**aiokafka_options(settings))
    try:
        await producer.start()
    except aiokafka.errors.KafkaError as e:
        print(type(e).__name__)
    finally:
        await producer.stop()

logging.basicConfig()
for number, values in enumerate(json.loads(sys.argv[1])):
    if number:
        print("next client", file=sys.stderr)
    settings = Settings(**values)
    try:
        kafka.KafkaProducer(**(kafka_python_options(settings) | {"bootstrap_timeout_ms": 500}))
    except kafka.errors.KafkaError as e:
        print(type(e).__name__)
    asyncio.run(connect(settings))
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    authority = make_authority(tmp_path_factory.mktemp("certificates"))
    broker, client = authority.issue("broker"), authority.issue("client")
    security = BrokerSecurity(
        broker.certificate,
        broker.key,
        authority.certificate,
        users={"fleet": "fleet-secret"},
        client_certificates=True,
    )
    with LocalKafka(security=security) as kafka:
        settings = Settings(
            bootstrap=kafka.bootstrap,
            security_protocol="SASL_SSL",
            ssl_cafile=authority.certificate,
            ssl_certfile=client.certificate,
            ssl_keyfile=client.key,
            sasl_mechanism="SCRAM-SHA-256",
            sasl_username="fleet",
            sasl_password="fleet-secret",
        )
        admin = KafkaAdminClient(**kafka_python_options(settings))
        admin.create_topics([NewTopic(TOPIC, num_partitions=1, replication_factor=1)])
        admin.close()
        yield settings


def test_what_one_client_writes_over_tls_and_scram_every_client_reads(settings: Settings) -> None:
    with KafkaProducer(**kafka_python_options(settings)) as producer:
        producer.send(TOPIC, b"from kafka-python").get(20)

    async def write_and_read() -> list[bytes]:
        async with AIOKafkaProducer(**aiokafka_options(settings)) as producer:
            await producer.send_and_wait(TOPIC, b"from aiokafka")
        async with AIOKafkaConsumer(TOPIC, auto_offset_reset="earliest", **aiokafka_options(settings)) as consumer:
            return [(await consumer.getone()).value for _ in range(2)]

    both = [b"from kafka-python", b"from aiokafka"]
    assert asyncio.run(asyncio.wait_for(write_and_read(), 60)) == both
    with KafkaConsumer(
        TOPIC, auto_offset_reset="earliest", consumer_timeout_ms=20_000, **kafka_python_options(settings)
    ) as consumer:
        assert [next(consumer).value for _ in range(2)] == both

    faust = subprocess.run(
        [sys.executable, "-c", FAUST_READER], env=_environment(settings), capture_output=True, text=True, timeout=60
    )
    assert (faust.returncode, faust.stdout.splitlines()[:1]) == (0, ["from kafka-python"]), faust.stderr


def test_a_client_that_lacks_one_proof_is_refused_and_told_why(settings: Settings) -> None:
    lacking: dict[str, dict[str, str | None]] = {
        "invalid credentials": {"sasl_password": "wrong"},
        "closed": {"ssl_certfile": None, "ssl_keyfile": None},
        "CERTIFICATE_VERIFY_FAILED": {"ssl_cafile": None},
    }
    wrong = [_plain(Settings(**(settings.model_dump() | change))) for change in lacking.values()]
    # In a process of its own: a kafka-python producer that cannot connect leaves its sockets open.
    refused = subprocess.run(
        [sys.executable, "-c", REFUSED_CLIENTS, json.dumps(wrong)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert refused.stdout.split() == ["KafkaTimeoutError", "KafkaConnectionError"] * 3, refused.stderr
    told = refused.stderr.split("next client")
    assert [reason in text for reason, text in zip(lacking, told, strict=True)] == [True] * 3, refused.stderr


def _environment(settings: Settings) -> dict[str, str]:
    """Return the same settings as variables, as a worker process gets them."""
    variables = {PREFIX + name.upper(): str(value) for name, value in _plain(settings).items()}
    return os.environ | variables


def _plain(settings: Settings) -> dict[str, Any]:
    assert settings.sasl_password is not None
    secret = {"sasl_password": settings.sasl_password.get_secret_value()}
    return settings.model_dump(mode="json", exclude_none=True) | secret
