"""The local broker starts, keeps what it should, and leaves nothing behind, however its owner ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import NewTopic

from acclimate.infra.broker import LocalKafka
from acclimate.infra.errors import BrokerError, SettingsError
from acclimate.infra.kafka_probe import serving_brokers

TOPIC = "kept"

CLI = "from acclimate.streams.cli import main; main()"

OWNER = """
import sys, time
from pathlib import Path
from acclimate.infra.broker import LocalKafka

with LocalKafka(data_dir=Path(sys.argv[1]), fresh=True) as kafka:
    print(kafka.bootstrap, *kafka.node_pids.values(), flush=True)
    time.sleep(600)
"""


def command(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `acclimate broker ARGUMENTS` on a data folder."""
    return subprocess.run(
        [sys.executable, "-c", CLI, "broker", *arguments, "--data-dir", str(folder), "--json"],
        env={k: v for k, v in os.environ.items() if k != "PATH"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def write_one(bootstrap: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics([NewTopic(TOPIC, num_partitions=1, replication_factor=1)])
    admin.close()
    with KafkaProducer(bootstrap_servers=bootstrap) as producer:
        producer.send(TOPIC, b"one record").get(20)


def topics(bootstrap: str) -> list[str]:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    names: list[str] = admin.list_topics()
    admin.close()
    return names


def wait_until_gone(pid: int) -> None:
    while Path(f"/proc/{pid}").exists():  # ended by pytest's timeout if it never goes
        time.sleep(0.05)


@pytest.mark.kafka
def test_records_outlive_a_restart_and_no_process_outlives_its_owner(tmp_path: Path) -> None:
    folder = tmp_path / "broker data ü"  # a blank and a letter outside ASCII on the way to Java

    # A detached broker, by the command line.
    started = command(folder, "start", "--port", "0")
    assert started.returncode == 0, started.stderr
    service = json.loads(started.stdout)
    pid = service["nodes"][0]["pid"]
    try:
        write_one(service["bootstrap"])

        again = command(folder, "start", "--port", "0")
        assert (again.returncode, json.loads(again.stdout)["started"]) == (0, False)
        assert json.loads(again.stdout)["nodes"][0]["pid"] == pid
        other = command(folder, "start", "--port", "0", "--fresh")
        assert (other.returncode, other.stdout) == (4, "")
        assert f"already running in {folder} at {service['bootstrap']}, but --fresh was asked for" in other.stderr
        with pytest.raises(BrokerError, match="already running"):
            LocalKafka(data_dir=folder).start()
        assert json.loads(command(folder, "status").stdout)["nodes"][0]["serving"] is True
    finally:
        stopped = command(folder, "stop")
    assert (stopped.returncode, json.loads(stopped.stdout)["stopped"]) == (0, True)
    wait_until_gone(pid)
    assert json.loads(command(folder, "status").stdout)["running"] is False
    assert json.loads(command(folder, "stop").stdout)["stopped"] is False

    # The same folder, continued by the context manager on a given port.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with LocalKafka(data_dir=folder, port=port) as kafka:
        assert kafka.bootstrap == f"127.0.0.1:{port}"
        pids = list(kafka.node_pids.values())
        with KafkaConsumer(
            TOPIC, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=20_000
        ) as consumer:
            record = next(consumer)
        assert record.value == b"one record"
        assert record.timestamp_type == 1  # LogAppendTime
        log = kafka.log(1)
    wait_until_gone(pids[0])
    assert log.exists()

    # Emptied, and its owner killed without a chance to clean up.
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    with owner.stdout as output:
        bootstrap, node_pid = output.readline().split()
        assert topics(bootstrap) == []
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    wait_until_gone(int(node_pid))


@pytest.mark.kafka
@pytest.mark.xdist_group("kafka3")
@pytest.mark.long
def test_a_killed_node_of_three_comes_back_and_the_others_go_on_meanwhile(kafka3: LocalKafka) -> None:
    before = kafka3.node_pids
    assert sorted(before) == [1, 2, 3]
    admin = KafkaAdminClient(bootstrap_servers=kafka3.bootstrap.split(","))
    admin.create_topics([NewTopic("replicated", num_partitions=3, replication_factor=-1)])
    in_sync: list[int] = []
    while in_sync != [3, 3, 3]:  # the node asked may hear of the topic a moment later
        [description] = admin.describe_topics(["replicated"])
        in_sync = [len(partition["isr_nodes"]) for partition in description["partitions"]]
        time.sleep(0.05)
    admin.close()

    kafka3.stop_node(2, signal.SIGKILL)
    try:
        wait_until_gone(before[2])
        assert kafka3.node_pids == {1: before[1], 3: before[3]}
        with pytest.raises(BrokerError, match=r"node 2 does not run; running are \[1, 3\]"):
            kafka3.stop_node(2)
        # A kafka-python client that is sent to a dead node leaves a socket open: wait until the others know.
        one, _, three = kafka3.bootstrap.split(",")
        while serving_brokers("127.0.0.1", int(one.rpartition(":")[2])) != {1, 3}:
            time.sleep(0.05)
        with KafkaProducer(bootstrap_servers=[one, three], acks="all") as producer:
            for partition in range(3):
                producer.send("replicated", b"x", partition=partition).get(60)
    finally:
        kafka3.start_node(2)
    assert sorted(kafka3.node_pids) == [1, 2, 3]
    assert kafka3.node_pids[2] != before[2]


def test_an_occupied_port_is_refused_by_number(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(BrokerError, match=f"port {port} on 127.0.0.1 is already in use"):
            LocalKafka(data_dir=tmp_path, port=port).start()


def test_a_folder_that_is_not_a_brokers_is_never_emptied(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(BrokerError, match=r"not a local broker's data \(thesis\.txt\)"):
        LocalKafka(data_dir=tmp_path, fresh=True).start()
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_kept_folder_of_one_node_is_not_continued_with_three(tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text('{"kafka_version": "4.3.1", "cluster_id": "A", "nodes": 1}')
    with pytest.raises(BrokerError, match=r"made for 1 node\(s\), 3 asked for"):
        LocalKafka(3, data_dir=tmp_path).start()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"nodes": 2}, "1 or 3 nodes, not 2"),
        ({"port": 80}, "1024 to 65532, not 80"),
        ({"heap": "64m"}, "256m or more"),
        ({"heap": "512"}, "written like 512m or 2g, not '512'"),
        ({"log_level": "loud"}, "trace, debug, info, warn, error, not 'loud'"),
    ],
)
def test_an_option_that_kafka_would_choke_on_is_a_settings_error(options: dict[str, object], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        LocalKafka(**options)  # type: ignore[arg-type]


def test_a_recorded_process_id_that_is_another_program_now_is_not_signalled(tmp_path: Path) -> None:
    ports = {"client": 29092, "internal": 29093, "controller": 29094}
    record = {
        "kafka_version": "4.3.1",
        "bootstrap": "127.0.0.1:29092",
        "nodes": {"1": {"pid": os.getpid(), "ports": ports}},
    }
    (tmp_path / "service.json").write_text(json.dumps(record))
    status = json.loads(command(tmp_path, "status").stdout)
    assert (status["running"], status["bootstrap"], status["nodes"][0]["running"]) == (False, None, False)
    assert json.loads(command(tmp_path, "stop").stdout)["stopped"] is False


def test_a_damaged_service_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "service.json").write_text("{")
    failed = command(tmp_path, "status")
    assert (failed.returncode, failed.stdout) == (4, "")
    assert f"{tmp_path / 'service.json'} cannot be read" in failed.stderr


def test_a_wrong_option_of_the_command_exits_with_2(tmp_path: Path) -> None:
    failed = command(tmp_path / "new", "start", "--heap", "tiny")
    assert failed.returncode == 2
    assert "256m or more" in failed.stderr
    assert not (tmp_path / "new").exists()


def test_a_port_where_nobody_answers_serves_no_brokers() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        assert serving_brokers("127.0.0.1", silent.getsockname()[1]) == frozenset()
        silent.listen()
        assert serving_brokers("127.0.0.1", silent.getsockname()[1], timeout_s=0.05) == frozenset()
