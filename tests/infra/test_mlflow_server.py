"""MLflow's real server, started and stopped as `acclimate up` does it."""

import http.client
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from acclimate.infra.background import Program
from acclimate.infra.errors import StackError
from acclimate.infra.mlflow_server import read_mlflow, start_mlflow, stop_mlflow


def answer(address: str, path: str, host: str | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=20)
    connection.request("GET", path, headers={"Host": host} if host else {})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, body


@pytest.mark.mlflow
@pytest.mark.xdist_group("mlflow")
def test_its_web_page_is_shown_to_this_machine_and_to_no_other_site(mlflow_server: Any):
    status, page = answer(mlflow_server.address, "/")
    assert status == 200
    assert b"<title>MLflow" in page
    path = "/api/2.0/mlflow/experiments/search?max_results=1"
    assert answer(mlflow_server.address, path)[0] == 200
    assert answer(mlflow_server.address, path, host="evil.example")[0] == 403


@pytest.mark.mlflow
@pytest.mark.xdist_group("mlflow")
def test_starting_twice_starts_one(mlflow_server: Any):
    before = read_mlflow(mlflow_server.folder)
    assert start_mlflow(mlflow_server.folder) == (before, False)
    with pytest.raises(StackError, match="port 1234 was asked for"):
        start_mlflow(mlflow_server.folder, 1234)


@pytest.mark.mlflow
@pytest.mark.xdist_group("mlflow")
@pytest.mark.long
def test_a_killed_server_is_started_again_and_stopped_with_all_its_processes(tmp_path: Path):
    first, _ = start_mlflow(tmp_path, 0)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    while read_mlflow(tmp_path).running:
        time.sleep(0.02)
    assert Program(tmp_path, "mlflow-server").pids()  # the process that serves outlives its parent
    again, started = start_mlflow(tmp_path, 0)
    assert started
    assert again.serving
    assert stop_mlflow(tmp_path) == again
    assert Program(tmp_path, "mlflow-server").pids() == ()
    assert not read_mlflow(tmp_path).running


def test_a_taken_port_is_said_before_anything_starts(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(StackError, match="is already in use"):
            start_mlflow(tmp_path, taken.getsockname()[1])
    assert not read_mlflow(tmp_path).running


@pytest.mark.long
@pytest.mark.mlflow
@pytest.mark.xdist_group("mlflow")
def test_a_store_that_mlflow_cannot_read_is_reported_with_its_log(tmp_path: Path):
    (tmp_path / "mlflow.db").write_bytes(b"no database at all, but long enough to be taken for one" * 100)
    with pytest.raises(StackError, match="file is not a database"):
        start_mlflow(tmp_path, 0)
    assert not read_mlflow(tmp_path).running
