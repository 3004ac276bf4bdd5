"""The append-only ``.history``: signed statements of all kinds, in the order in which they came.

Releases come from the controller in a transaction (`streams.release_log`); verdicts of gates and approvals come from
whoever holds such a key. What an entry is says its payload type, and whether it counts its signature: the topic itself
proves nothing.
"""

from collections.abc import Iterator

from kafka import KafkaProducer

from adaptation.errors import ContractError
from infra.settings import Settings
from registry.envelope import Envelope, parse_envelope
from registry.history import Entry
from streams.connect import kafka_python_options
from streams.reading import read_topic
from streams.topics import topic_name

__all__ = ["read_history", "send_statement"]

_ACK_S = 60.0


def send_statement(settings: Settings, statement: Envelope) -> None:
    """Append a verdict or an approval; when this returns, the broker has it.

    Raises:
        KafkaError: The broker does not answer.
    """
    producer = KafkaProducer(**kafka_python_options(settings), acks="all", enable_idempotence=True)
    try:
        value = statement.model_dump_json().encode()
        sent = producer.send(topic_name(settings.fleet, "history"), key=settings.fleet.encode(), value=value)
        sent.get(timeout=_ACK_S)
    finally:
        producer.close(timeout=5)


def read_history(settings: Settings) -> Iterator[Entry]:
    """Yield the statements of the history, oldest first; what is no statement is passed over.

    Raises:
        KafkaError: The broker does not answer.
    """
    for message in read_topic(settings, "history"):
        try:
            envelope = parse_envelope(message.value or b"", "history")
        except ContractError:
            continue  # whoever may write the topic may write noise
        yield Entry(offset=message.offset, at_ms=message.timestamp, envelope=envelope)
