"""The `server.properties` of a local Kafka node, as text from plain values.

Each node is broker and controller in one process and listens on 127.0.0.1 only. Its listeners: CLIENT, the address that
`bootstrap` names, plain or secured; INTERNAL, always plain, for the brokers among themselves and the readiness probe;
CONTROLLER, for the quorum.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from acclimate.infra.errors import BrokerError
from acclimate.infra.ports import HOST

__all__ = ["BrokerSecurity", "Mechanism", "NodePorts", "scram_arguments", "server_properties"]

Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
_LOGIN_MODULE = {
    "PLAIN": "org.apache.kafka.common.security.plain.PlainLoginModule",
    "SCRAM-SHA-256": "org.apache.kafka.common.security.scram.ScramLoginModule",
    "SCRAM-SHA-512": "org.apache.kafka.common.security.scram.ScramLoginModule",
}
_UNQUOTABLE = set("\"'\\,;=[]") | {chr(c) for c in range(0x21)}


@dataclass(frozen=True)
class NodePorts:
    """The three ports of one node."""

    client: int
    internal: int
    controller: int


@dataclass(frozen=True)
class BrokerSecurity:
    """How the client listener is secured: TLS always, users and client certificates where asked for.

    Args:
        certificate: PEM file, the broker's certificate chain; it must name 127.0.0.1.
        key: PEM file, the certificate's private key (PKCS#8, not encrypted).
        authority: PEM file, the certificates that sign client certificates.
        users: name to password; with users the listener is SASL_SSL, without SSL. Fixed when the data folder is made.
        mechanisms: SASL mechanisms that the users may choose from.
        client_certificates: refuse clients without a certificate signed by `authority`.
    """

    certificate: Path
    key: Path
    authority: Path
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    mechanisms: tuple[Mechanism, ...] = ("SCRAM-SHA-256",)
    client_certificates: bool = False

    @property
    def protocol(self) -> Literal["SSL", "SASL_SSL"]:
        """Name the protocol as Kafka's clients do."""
        return "SASL_SSL" if self.users else "SSL"


def server_properties(
    node_id: int,
    ports: Mapping[int, NodePorts],
    folder: Path,
    security: BrokerSecurity | None = None,
    overrides: Mapping[str, str] | None = None,
) -> str:
    """Return the text of one node's `server.properties`.

    Args:
        node_id: which of the nodes in `ports`.
        ports: node id to ports, all nodes of the cluster.
        folder: the node's folder; records go to its `data`, with `security` the key store is `keystore.pem` there.
        security: of the client listener; None is plain text.
        overrides: broker properties that win over the ones below.
    """
    own = ports[node_id]
    copies = "3" if len(ports) >= 3 else "1"
    listeners = {"CLIENT": own.client, "INTERNAL": own.internal}
    addresses = ",".join(f"{name}://{HOST}:{port}" for name, port in listeners.items())
    properties = {
        "process.roles": "broker,controller",
        "node.id": str(node_id),
        "controller.quorum.voters": ",".join(f"{n}@{HOST}:{p.controller}" for n, p in ports.items()),
        "controller.listener.names": "CONTROLLER",
        "listeners": f"{addresses},CONTROLLER://{HOST}:{own.controller}",
        "advertised.listeners": addresses,
        "listener.security.protocol.map": (
            f"CLIENT:{security.protocol if security else 'PLAINTEXT'},INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT"
        ),
        "inter.broker.listener.name": "INTERNAL",
        "log.dirs": str(folder / "data"),
        "auto.create.topics.enable": "false",
        # The clock of a device must not decide what retention deletes or what the broker refuses.
        "log.message.timestamp.type": "LogAppendTime",
        "default.replication.factor": copies,
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.replication.factor": copies,
        "share.coordinator.state.topic.replication.factor": copies,
        "min.insync.replicas": "2" if copies == "3" else "1",
        "transaction.state.log.min.isr": "2" if copies == "3" else "1",
        "share.coordinator.state.topic.min.isr": "2" if copies == "3" else "1",
        # A consumer group starts at once, and its first topic costs four logs instead of fifty.
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.num.partitions": "4",
        # The default of 128 MiB does not fit into a small heap.
        "log.cleaner.dedupe.buffer.size": str(32 * 2**20),
        "log.cleaner.threads": "1",
        "num.network.threads": "2",
        "num.io.threads": "4",
        **(_security_properties(security, folder) if security else {}),
        **(overrides or {}),
    }
    return "".join(f"{name}={_escaped(value)}\n" for name, value in properties.items())


def scram_arguments(security: BrokerSecurity | None) -> list[str]:
    """Return the arguments that make Kafka's StorageTool store the SCRAM users.

    >>> scram_arguments(None)
    []
    """
    if security is None:
        return []
    _check_users(security.users)
    return [
        argument
        for mechanism in security.mechanisms
        if mechanism != "PLAIN"
        for user, password in security.users.items()
        for argument in ("--add-scram", f"{mechanism}=[name={user},password={password}]")
    ]


def _security_properties(security: BrokerSecurity, folder: Path) -> dict[str, str]:
    _check_users(security.users)
    prefix = "listener.name.client."
    properties = {
        f"{prefix}ssl.keystore.type": "PEM",
        f"{prefix}ssl.keystore.location": str(folder / "keystore.pem"),
        f"{prefix}ssl.truststore.type": "PEM",
        f"{prefix}ssl.truststore.location": str(security.authority),
        f"{prefix}ssl.client.auth": "required" if security.client_certificates else "none",
    }
    if security.users:
        properties[f"{prefix}sasl.enabled.mechanisms"] = ",".join(security.mechanisms)
    for mechanism in security.mechanisms if security.users else ():
        names = "".join(f' user_{u}="{p}"' for u, p in security.users.items()) if mechanism == "PLAIN" else ""
        properties[f"{prefix}{mechanism.lower()}.sasl.jaas.config"] = f"{_LOGIN_MODULE[mechanism]} required{names};"
    return properties


def _check_users(users: Mapping[str, str]) -> None:
    for user, password in users.items():
        for what, text in (("user name", user), ("password", password)):
            if not text or not text.isascii() or _UNQUOTABLE & set(text):
                raise BrokerError(
                    f"the {what} of the local broker's user {user!r} must be printable ASCII without blanks, quotes "
                    "and any of \\ , ; = [ ]: Kafka's own set-up command cannot take others"
                )


def _escaped(value: str) -> str:
    # Java's properties format: a backslash escapes, a leading blank would be dropped, non-Latin-1 needs \uXXXX.
    text = value.replace("\\", "\\\\").replace("\n", "\\n")
    return "".join(
        c if ord(c) < 128 else "".join(f"\\u{int.from_bytes(b, 'big'):04x}" for b in _utf16(c)) for c in text
    )


def _utf16(character: str) -> list[bytes]:
    encoded = character.encode("utf-16-be")
    return [encoded[i : i + 2] for i in range(0, len(encoded), 2)]
