"""Ask a Kafka node whether it serves: one Metadata request over a bare socket.

A log line or an open port comes too early, and a client library would be a dependency of the local stack only. Wire
format: Kafka protocol guide, Metadata request and response version 1.
"""

import socket
import struct

__all__ = ["serving_brokers"]

_METADATA_V1 = struct.pack(">hhihi", 3, 1, 7, -1, 0)  # key, version, correlation id, no client id, no topics


def serving_brokers(host: str, port: int, timeout_s: float = 2.0) -> frozenset[int]:
    """Return the ids of the brokers that the node at a plain-text address knows to be serving.

    An empty set means that the node does not answer (yet).
    """
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            connection.sendall(struct.pack(">i", len(_METADATA_V1)) + _METADATA_V1)
            (size,) = struct.unpack(">i", _read(connection, 4))
            return _broker_ids(_read(connection, size))
    except (OSError, EOFError):
        return frozenset()


def _read(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        chunk = connection.recv(size - len(received))
        if not chunk:
            raise EOFError(f"connection closed after {len(received)} of {size} bytes")
        received += chunk
    return bytes(received)


def _broker_ids(response: bytes) -> frozenset[int]:
    """Read the broker ids out of a Metadata response, version 1.

    >>> one = struct.pack(">i", 2) + struct.pack(">h", 1) + b"h" + struct.pack(">ih", 9092, -1)
    >>> sorted(_broker_ids(struct.pack(">ii", 7, 1) + one))
    [2]
    """
    _, count = struct.unpack_from(">ii", response)
    position, ids = 8, set()
    for _ in range(count):
        node_id, host_size = struct.unpack_from(">ih", response, position)
        ids.add(node_id)
        position += 4 + 2 + host_size + 4  # id, host, port
        (rack_size,) = struct.unpack_from(">h", response, position)
        position += 2 + max(rack_size, 0)
    return frozenset(ids)
