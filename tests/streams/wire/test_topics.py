"""Topics must be there when they are said to be, and a device in partitions of equal number everywhere."""

import pytest
from kafka import KafkaAdminClient

from acclimate.infra.settings import Settings
from acclimate.streams.wire.topics import TOPICS, create_topics, differing_topics, topic_name

pytestmark = pytest.mark.kafka


def partitions_of(settings: Settings) -> dict[str, int]:
    admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap)
    try:
        names = {topic_name(settings.fleet, topic.suffix): topic.suffix for topic in TOPICS}
        found = admin.describe_topics(list(names))
        return {names[each["name"]]: len(each["partitions"]) for each in found if each["error_code"] == 0}
    finally:
        admin.close()


@pytest.mark.parametrize("attempt", range(3))
def test_new_topics_are_known_as_they_were_declared_when_creating_returns(kafka: str, fleet: str, attempt: int) -> None:
    settings = Settings(bootstrap=kafka, fleet=fleet)
    assert len(create_topics(settings, partitions=4)) == len(TOPICS)
    assert partitions_of(settings) == {topic.suffix: 4 if topic.partitioned else 1 for topic in TOPICS}
    assert differing_topics(settings) == []
    assert create_topics(settings, partitions=4) == []


def test_a_topic_that_comes_later_gets_the_partitions_that_the_fleet_has(kafka: str, fleet: str) -> None:
    settings = Settings(bootstrap=kafka, fleet=fleet)
    create_topics(settings, partitions=4)
    admin = KafkaAdminClient(bootstrap_servers=kafka)
    admin.delete_topics([topic_name(fleet, "adapters")])
    admin.close()
    assert create_topics(settings, partitions=9) == [topic_name(fleet, "adapters")]
    assert partitions_of(settings)["adapters"] == 4
