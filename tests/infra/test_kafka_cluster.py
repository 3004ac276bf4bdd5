"""Configuration says what we promise, and a node that fails says why and what to do."""

from pathlib import Path

import pytest

from acclimate.infra.errors import BrokerError
from acclimate.infra.kafka_cluster import Cluster, java_environment
from acclimate.infra.kafka_properties import BrokerSecurity, NodePorts, scram_arguments, server_properties
from acclimate.infra.kafka_ready import wait_until_serving

PORTS = {n: NodePorts(n, 10 + n, 20 + n) for n in (1, 2, 3)}


def properties(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


def test_no_listener_is_reachable_from_another_machine() -> None:
    for nodes in (1, 3):
        found = properties(server_properties(1, {n: PORTS[n] for n in range(1, nodes + 1)}, Path("/data")))
        for name in ("listeners", "advertised.listeners"):
            assert all("://127.0.0.1:" in listener for listener in found[name].split(","))


def test_three_nodes_keep_three_copies_and_need_two_and_one_node_needs_one() -> None:
    three = properties(server_properties(2, PORTS, Path("/data")))
    one = properties(server_properties(1, {1: PORTS[1]}, Path("/data")))
    assert three["controller.quorum.voters"] == "1@127.0.0.1:21,2@127.0.0.1:22,3@127.0.0.1:23"
    for found, copies, in_sync in ((three, "3", "2"), (one, "1", "1")):
        assert found["default.replication.factor"] == copies
        assert found["offsets.topic.replication.factor"] == copies
        assert found["transaction.state.log.replication.factor"] == copies
        assert found["min.insync.replicas"] == in_sync
    assert three["auto.create.topics.enable"] == one["auto.create.topics.enable"] == "false"
    assert three["log.message.timestamp.type"] == one["log.message.timestamp.type"] == "LogAppendTime"


def test_a_given_property_wins_over_ours() -> None:
    text = server_properties(
        1, {1: PORTS[1]}, Path("/data"), overrides={"message.max.bytes": "5", "num.io.threads": "9"}
    )
    found = properties(text)
    assert (found["message.max.bytes"], found["num.io.threads"]) == ("5", "9")


def test_a_path_outside_latin_1_is_escaped_as_java_reads_it() -> None:
    assert "log.dirs=/t\\u00fcr/\\ud83d\\ude00/data\n" in server_properties(1, {1: PORTS[1]}, Path("/tür/😀"))


def test_users_are_never_in_the_text_of_a_security_object_and_never_break_out_of_their_quotes() -> None:
    def security(password: str) -> BrokerSecurity:
        return BrokerSecurity(Path("c"), Path("k"), Path("a"), users={"u": password}, mechanisms=("PLAIN",))

    assert "geheim" not in repr(security("geheim"))
    assert scram_arguments(security("geheim")) == []
    for password in ('x" user_admin="y', "a;b", "a b", "a]", "ä", ""):
        with pytest.raises(BrokerError, match="password of the local broker's user 'u'"):
            server_properties(1, {1: PORTS[1]}, Path("/data"), security(password))


@pytest.mark.parametrize(
    ("logged", "advice"),
    [
        ("java.net.BindException: Address already in use", "choose another --port"),
        ("Failed to acquire lock on file .lock", "another broker still uses this data folder"),
        ("There is insufficient memory for the Java Runtime", "choose another --heap"),
        ("something new", "see the whole log"),
    ],
)
def test_a_node_that_ends_before_it_serves_quotes_its_log_and_says_what_to_do(
    tmp_path: Path, logged: str, advice: str
) -> None:
    cluster = Cluster(tmp_path, {1: NodePorts(1, 1, 1)}, {})  # nobody answers on port 1
    cluster.log(1).parent.mkdir()
    cluster.log(1).write_text("\n".join([f"line {n}" for n in range(100)] + [logged]))
    with pytest.raises(BrokerError) as caught:
        wait_until_serving(cluster, lambda node_id: 3, limit_s=0)
    message = str(caught.value)
    assert "node 1 ended with exit code 3 before it served" in message
    assert logged in message
    assert "line 99" in message
    assert "line 50" not in message
    assert advice in message
    with pytest.raises(BrokerError, match="did not serve within 0 s"):
        wait_until_serving(cluster, lambda node_id: None, limit_s=0)


def test_a_users_java_options_do_not_reach_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-javaagent:other.jar")
    monkeypatch.setenv("CLASSPATH", "other.jar")
    assert {"JAVA_TOOL_OPTIONS", "CLASSPATH"}.isdisjoint(java_environment())
