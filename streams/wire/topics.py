"""The topics of a fleet, as data, and their creation.

Every topic uses ``LogAppendTime``: with ``CreateTime`` a device whose clock is wrong is refused or loses its backlog to
retention. Event time travels in the payload.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewTopic
from kafka.errors import TopicAlreadyExistsError

from acclimate.infra.settings import Settings
from acclimate.streams.wire.connect import kafka_python_options

__all__ = ["TOPICS", "Topic", "create_topics", "differing_topics", "topic_name"]

DAY_MS = 24 * 3600 * 1000
# Compaction leaves the newest segment alone, by default for a week: whoever starts would read all of that week.
_COMPACTED = {"segment.ms": "3600000", "max.compaction.lag.ms": "3600000"}


@dataclass(frozen=True)
class Topic:
    """One topic of the catalogue.

    ``partitioned`` topics have the fleet's number of partitions (one device always in one partition), others have one.
    ``retention_ms`` -1 keeps for ever; ``bytes_max`` bounds one record as the broker counts it, compressed.
    """

    suffix: str
    key: str
    content: str
    cleanup: Literal["delete", "compact"]
    retention_ms: int
    bytes_max: int
    partitioned: bool = True


TOPICS: tuple[Topic, ...] = (
    Topic("features", "device", "windows of one device session", "delete", 7 * DAY_MS, 1_048_588),
    Topic("windows", "device", "windows that a device answered itself", "delete", 7 * DAY_MS, 1_048_588),
    Topic("requests", "device", "windows that such a device is asked for", "delete", 7 * DAY_MS, 1_048_588),
    Topic("predictions", "device", "answers, shift and receipt per window", "delete", 30 * DAY_MS, 8_388_608),
    Topic("shifts", "device", "onset and end of drift", "delete", 30 * DAY_MS, 1_048_588),
    Topic("labels", "device", "delayed truth", "delete", 90 * DAY_MS, 1_048_588),
    Topic("adapters", "device", "the decision in force for a device", "compact", -1, 1_048_588),
    Topic("releases", "fleet", "the one signed release in force", "compact", -1, 1_048_588, partitioned=False),
    Topic("history", "fleet", "every release and adapter record", "delete", -1, 1_048_588, partitioned=False),
    Topic("artifacts", "digest/part", "bytes of bundles and adapters", "compact", -1, 1_048_588, partitioned=False),
    Topic("status", "who", "what a worker or device really runs", "compact", -1, 1_048_588, partitioned=False),
    # Above the limit of .features: the letter carries the whole original and the error headers.
    Topic("dlq", "original key", "refused records, original bytes", "delete", 30 * DAY_MS, 2_097_152),
)


def topic_name(fleet: str, suffix: str) -> str:
    """Return the full name of a topic of the catalogue.

    >>> topic_name("acclimate", "features")
    'acclimate.features'
    """
    if suffix not in {topic.suffix for topic in TOPICS}:
        raise KeyError(suffix)
    return f"{fleet}.{suffix}"


def create_topics(settings: Settings, partitions: int = 6, replication: int = -1) -> Sequence[str]:
    """Create the fleet's missing topics and return their names; existing ones are left as they are.

    Args:
        settings: Where the broker is.
        partitions: The partitions of the topics keyed by device; they bound the number of useful workers. Where
            ``.features`` exists, new topics get its number: a device lies in partitions of equal number everywhere.
        replication: Copies of each partition, -1 for the broker's default.

    Raises:
        KafkaError: The broker does not answer, or does not know the new topics within 30 s.
    """
    admin = KafkaAdminClient(**kafka_python_options(settings))
    try:
        existing = set(admin.list_topics())
        features = topic_name(settings.fleet, "features")
        if features in existing:
            partitions = len(admin.describe_topics([features])[0]["partitions"])
        created = []
        missing = {topic_name(settings.fleet, topic.suffix) for topic in TOPICS} - existing
        for topic in TOPICS:
            name = topic_name(settings.fleet, topic.suffix)
            if name in existing:
                continue
            new = NewTopic(name, partitions if topic.partitioned else 1, replication, topic_configs=_configs(topic))
            try:
                admin.create_topics([new])
            except TopicAlreadyExistsError:  # another process was faster
                continue
            created.append(name)
        # The broker has taken them, and knows them up to two seconds later: whoever asks before that is told that
        # there is no such topic.
        admin.wait_for_topics(missing, timeout_ms=30_000)
        return created
    finally:
        admin.close()


def differing_topics(settings: Settings) -> Sequence[str]:
    """Return one line for every declared topic property that the broker holds differently."""
    admin = KafkaAdminClient(**kafka_python_options(settings))
    try:
        names = {topic_name(settings.fleet, topic.suffix): topic for topic in TOPICS}
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        found = admin.describe_configs(resources, config_filter="all")["topic"]
        lines = []
        for name, topic in names.items():
            for key, expected in _configs(topic).items():
                value = found.get(name, {}).get(key, {}).get("value", "not shown to this user")
                if value != expected:
                    lines.append(f"topic {name}: {key} is {value}, expected {expected}")
        return lines
    finally:
        admin.close()


def _configs(topic: Topic) -> dict[str, str]:
    return {
        "cleanup.policy": topic.cleanup,
        "retention.ms": str(topic.retention_ms),
        "max.message.bytes": str(topic.bytes_max),
        "message.timestamp.type": "LogAppendTime",
    } | (_COMPACTED if topic.cleanup == "compact" else {})
