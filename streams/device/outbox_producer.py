"""Building and ending a kafka-python producer without waiting longer than one wants to."""

import logging
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError

__all__ = ["ProducerAttempt", "end_producer", "reach_broker"]

_log = logging.getLogger(__name__)

_STOP_LIMIT_S = 10.0
_REACH_LIMIT_S = 10.0


class ProducerAttempt:
    """One try to build a producer, in a thread: the constructor waits for a broker and cannot be interrupted."""

    def __init__(self, options: Mapping[str, Any], notify: Callable[[], None]) -> None:
        self.done = threading.Event()
        self.result: Any = None
        self._lock = threading.Lock()
        self._abandoned = False
        self._notify = notify
        threading.Thread(target=self._build, args=(options,), name="outbox-connect", daemon=True).start()

    def abandon(self) -> None:
        """Have the producer closed as soon as it is there."""
        with self._lock:
            self._abandoned = True
            if isinstance(self.result, KafkaProducer):
                end_producer(self.result)

    def _build(self, options: Mapping[str, Any]) -> None:
        clients: list[Any] = []

        def client(**configs: Any) -> Any:
            clients.append(KafkaProducer.DEFAULT_CONFIG["kafka_client"](**configs))
            return clients[0]

        try:
            reach_broker(options["bootstrap_servers"])
            result: Any = KafkaProducer(**options, kafka_client=client)
        except Exception as error:  # handed to the sending thread, which tells an outage from a bug
            result = error
            for made in clients:
                made.close()  # a constructor that fails leaves its sockets open
        with self._lock:
            self.result = result
            if self._abandoned and isinstance(result, KafkaProducer):
                end_producer(result)
        self.done.set()
        self._notify()


def reach_broker(addresses: Sequence[str]) -> None:
    """Check that one broker accepts connections: kafka-python tries for 30 s, and each of its failures leaks a socket.

    Raises:
        OSError: None does; the text is the last one's.
    """
    for number, address in enumerate(addresses, 1):
        host, _, port = address.strip().rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_LIMIT_S):
                return
        except OSError as error:
            if number == len(addresses):
                raise OSError(f"no broker at {','.join(addresses)}: {error}") from error


def end_producer(producer: Any) -> None:
    """Stop a producer now; what it had not sent fails, what it had sent may be there or not."""
    producer._sender.force_close()
    producer._sender.join(_STOP_LIMIT_S)
    try:
        producer.close(timeout=_STOP_LIMIT_S)
    except KafkaError as error:
        _log.warning("the Kafka producer did not close in time: %s", error)
