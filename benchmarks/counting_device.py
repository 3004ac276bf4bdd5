"""One device that follows releases and counts what its sockets receive; see `benchmarks.device_bytes`.

Reads one command per line, answers each with the bytes received since the answer before.

    python -m benchmarks.counting_device BOOTSTRAP FLEET TRUST STATE
        until EPOCH     catch up and look on until this release is in use
        idle SECONDS    look on
"""

import socket
import sys
import time
from pathlib import Path
from typing import Any


class CountingSocket(socket.socket):
    """A socket that counts what all of its kind receive, before any client library sees it."""

    received = 0

    def recv(self, *arguments: Any) -> bytes:
        data = super().recv(*arguments)
        CountingSocket.received += len(data)
        return data

    def recv_into(self, *arguments: Any) -> int:
        count = super().recv_into(*arguments)
        CountingSocket.received += count
        return count


def main() -> None:
    socket.socket = CountingSocket  # type: ignore[misc]  # before kafka-python is imported
    from acclimate.infra.settings import Settings
    from acclimate.streams.releases.receiver import Receiver

    bootstrap, fleet, trust, state = sys.argv[1:]
    settings = Settings(bootstrap=bootstrap, fleet=fleet, trust=Path(trust), state=Path(state))
    receiver = Receiver(settings, ("source",), lambda loaded: loaded.release.epoch)
    before = 0
    for line in sys.stdin:
        command, value = line.split()
        if command == "until":
            receiver.catch_up()
            while receiver.report.epoch < int(value):
                receiver.poll()
        else:
            end = time.monotonic() + float(value)
            while time.monotonic() < end:
                receiver.poll()
        print(CountingSocket.received - before, flush=True)
        before = CountingSocket.received
    receiver.close()


if __name__ == "__main__":
    main()
