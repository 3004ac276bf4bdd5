"""Bytes of one device: what is counted, and that a larger fleet does not cost it more."""

import socket
from pathlib import Path

import pytest

from benchmarks.counting_device import CountingSocket
from benchmarks.device_bytes import measure


def test_every_byte_that_a_socket_receives_is_counted():
    before = CountingSocket.received
    with socket.create_server(("127.0.0.1", 0)) as server, CountingSocket() as client:
        client.connect(server.getsockname())
        there, _ = server.accept()
        with there:
            there.sendall(b"x" * 1000)
            assert client.recv(600, socket.MSG_WAITALL) == b"x" * 600
            assert client.recv_into(bytearray(400)) == 400
    assert CountingSocket.received - before == 1000


@pytest.mark.kafka
def test_the_size_of_the_fleet_does_not_show_in_what_a_device_receives(kafka: str, tmp_path: Path):
    small, large = (measure(kafka, tmp_path / str(n), n, 1.0) for n in (10, 500))
    for row in (small, large):
        promotion = row["promotion"]
        assert promotion["total"] == promotion["record"] + promotion["artifacts"] + promotion["protocol"]
        assert promotion["artifacts"] > 200_000
        assert 4_000 < row["record"] < 10_000
    # 490 devices more put 340 kB of predictions into the topics; fetches that bring a file twice vary by as much.
    assert large["promotion"]["record"] - small["promotion"]["record"] < 200
    assert large["promotion"]["total"] < 2 * small["promotion"]["total"]
