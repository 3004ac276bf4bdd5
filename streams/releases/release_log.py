"""Write releases: one transaction puts a release in force and into the history, and fences every earlier writer.

``.releases`` and ``.history`` never differ, and a controller that was thought dead cannot write any more: the broker
refuses its producer as soon as another one has begun (`transactional.id`).
"""

from collections.abc import Mapping, Set
from types import TracebackType
from typing import Self

from kafka import KafkaProducer
from kafka.errors import InvalidProducerEpochError, KafkaError, ProducerFencedError

from acclimate.infra.errors import BrokerError
from acclimate.infra.settings import Settings
from acclimate.registry.releases.release import Place, record_bytes
from acclimate.registry.trust.envelope import Envelope
from acclimate.streams.wire.artifacts import publish_files, remove_files
from acclimate.streams.wire.connect import kafka_python_options
from acclimate.streams.wire.messages import ControllerStatus
from acclimate.streams.wire.reading import read_topic
from acclimate.streams.wire.topics import topic_name

__all__ = ["Fenced", "ReleaseLog"]

_ACK_S = 60.0
_TRANSACTION_MS = 30_000


class Fenced(BrokerError):
    """Another controller of the same fleet has begun; this one must end."""


class ReleaseLog:
    """The one writer of a fleet's releases; making one fences all earlier ones.

    Raises:
        KafkaError: The broker does not answer.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._releases = topic_name(settings.fleet, "releases")
        self._history = topic_name(settings.fleet, "history")
        options = kafka_python_options(settings)
        self._producer = KafkaProducer(
            **options,
            acks="all",
            transactional_id=f"{settings.fleet}.controller",
            transaction_timeout_ms=_TRANSACTION_MS,
        )
        self._producer.init_transactions()
        # Files may be sent any number of times and are believed for their digests alone: they need no transaction.
        self._files = KafkaProducer(**options, acks="all", enable_idempotence=True, max_request_size=1_048_576)

    def newest(self) -> bytes | None:
        """Return the last value of ``.releases``; None where there is none."""
        value = None
        for message in read_topic(self._settings, "releases"):
            value = message.value
        return value

    def publish_files(self, files: Mapping[str, bytes], known: Mapping[str, Place]) -> dict[str, Place]:
        """Send files that have no place yet; see `acclimate.streams.wire.artifacts.publish_files`."""
        return publish_files(self._files, self._settings.fleet, files, known)

    def remove_files(self, keep: Set[str]) -> int:
        """Remove files that are not to be kept; see `acclimate.streams.wire.artifacts.remove_files`."""
        return remove_files(self._files, self._settings, keep)

    def append(self, trust: Envelope, release: Envelope) -> None:
        """Put a release in force; when this returns it is, and the history has it.

        Raises:
            Fenced: Another controller has begun.
            KafkaError: The broker does not answer; whether the release is in force shows `newest`.
        """
        key, value = self._settings.fleet.encode(), release.model_dump_json().encode()
        self._send((self._releases, key, record_bytes(trust, release)), (self._history, key, value))

    def note(self, statement: Envelope) -> None:
        """Append a statement to the history alone.

        Raises:
            Fenced: Another controller has begun.
            KafkaError: The broker does not answer.
        """
        self._send((self._history, self._settings.fleet.encode(), statement.model_dump_json().encode()))

    def beat(self, status: ControllerStatus) -> None:
        """Say that this controller is alive; one that was fenced learns it here at the latest.

        Raises:
            Fenced: Another controller has begun.
            KafkaError: The broker does not answer.
        """
        topic = topic_name(self._settings.fleet, "status")
        self._send((topic, b"controller", status.model_dump_json().encode()))

    def close(self) -> None:
        """Disconnect."""
        self._producer.close(timeout=5)
        self._files.close(timeout=5)

    def _send(self, *records: tuple[str, bytes, bytes]) -> None:
        """Append records (topic, key, value) in one transaction."""
        try:
            self._producer.begin_transaction()
            sent = [self._producer.send(topic, key=key, value=value) for topic, key, value in records]
            self._producer.commit_transaction()
            for future in sent:
                future.get(timeout=_ACK_S)
        except KafkaError as error:
            if not _is_fence(error):
                raise
            raise Fenced(
                f"another controller of fleet {self._settings.fleet} has begun; this one ends. Run one at a time"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is_fence(error: KafkaError) -> bool:
    """Say whether the broker has refused a producer for a later one; kafka-python may wrap the error that says so."""
    return any(isinstance(each, ProducerFencedError | InvalidProducerEpochError) for each in (error, *error.args))
