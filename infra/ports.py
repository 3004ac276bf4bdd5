"""Ports of this machine's loopback address."""

import random
import socket

from acclimate.infra.errors import StackError

__all__ = ["HOST", "free_port", "is_free"]

HOST = "127.0.0.1"
# Below the range that the kernel takes outgoing connections' ports from, so that a port found free stays free.
_RANGE = (20_000, 32_000)


def free_port(taken: set[int]) -> int:
    """Return a port that nobody listens on and add it to those taken.

    Raises:
        StackError: none is left.
    """
    draw = random.SystemRandom()
    for _ in range(1000):
        port = draw.randrange(*_RANGE)
        if port not in taken and is_free(port):
            taken.add(port)
            return port
    raise StackError(f"no free port found on {HOST} between {_RANGE[0]} and {_RANGE[1]}")


def is_free(port: int) -> bool:
    """Tell whether a program could listen on a port."""
    with socket.socket() as probe:
        # As servers do: connections that are closing do not count, a listening socket does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
