"""The append-only ``.history``: signed statements of all kinds, in the order in which they came.

Releases come from the controller in a transaction (`acclimate.streams.releases.release_log`); verdicts of gates and
approvals come from whoever holds such a key. What an entry is says its payload type, and whether it counts its
signature: the topic itself proves nothing.
"""

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from acclimate.adaptation.errors import ContractError
from acclimate.infra.settings import Settings
from acclimate.registry.releases.history import Entry, History, read_entries
from acclimate.registry.trust.envelope import Envelope, parse_envelope
from acclimate.registry.trust.trust import Trust
from acclimate.streams.wire.connect import kafka_python_options
from acclimate.streams.wire.reading import committed_reader, read_to_end
from acclimate.streams.wire.topics import topic_name

__all__ = ["HistoryReader", "read_history", "send_statement"]

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


class HistoryReader:
    """Read the history from its beginning, and go on from there at each call. Use it from one thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._partition = TopicPartition(topic_name(settings.fleet, "history"), 0)
        self._consumer: KafkaConsumer | None = None
        self._entries: list[Entry] = []
        self._known: tuple[int, Trust, History] | None = None

    def read(self, trust: Trust) -> History:
        """Return what is believed of the history up to its present end.

        Raises:
            KafkaError: The broker does not answer.
        """
        if self._consumer is None:
            consumer = committed_reader(self._settings)
            if not consumer.partitions_for_topic(self._partition.topic):
                consumer.close()
                return History()  # nobody has begun this fleet
            self._consumer = consumer
            self._consumer.assign([self._partition])
            self._consumer.seek(self._partition, self._entries[-1].offset + 1 if self._entries else 0)
        for message in read_to_end(self._consumer, [self._partition]):
            try:
                envelope = parse_envelope(message.value or b"", "history")
            except ContractError:
                continue  # whoever may write the topic may write noise
            self._entries.append(Entry(offset=message.offset, at_ms=message.timestamp, envelope=envelope))
        if self._known is None or self._known[:2] != (len(self._entries), trust):
            self._known = (len(self._entries), trust, read_entries(self._entries, trust))
        return self._known[2]

    def close(self) -> None:
        """Disconnect; the next call connects anew and goes on."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None


def read_history(settings: Settings, trust: Trust) -> History:
    """Return what is believed of a fleet's history.

    Raises:
        KafkaError: The broker does not answer.
    """
    reader = HistoryReader(settings)
    try:
        return reader.read(trust)
    finally:
        reader.close()
