"""Reading up to the present end loses nothing of what comes meanwhile: on real Kafka."""

from collections.abc import Sequence
from typing import Any

import pytest
from kafka import KafkaProducer, TopicPartition

from acclimate.infra.settings import Settings
from acclimate.streams.wire.connect import kafka_python_options
from acclimate.streams.wire.reading import committed_reader, read_to_end
from acclimate.streams.wire.topics import create_topics, topic_name

pytestmark = pytest.mark.kafka


def test_a_record_that_comes_while_the_end_is_looked_for_is_read_by_the_next_poll(
    kafka: str, fleet: str, monkeypatch: pytest.MonkeyPatch
):
    settings = Settings(bootstrap=kafka, fleet=fleet)
    create_topics(settings, partitions=1)
    tp = TopicPartition(topic_name(fleet, "releases"), 0)
    producer = KafkaProducer(**kafka_python_options(settings), acks="all")
    consumer = committed_reader(settings)
    ask = consumer.end_offsets

    def end_offsets(partitions: Sequence[TopicPartition]) -> Any:
        ends = ask(partitions)
        for value in (b"during 1", b"during 2"):
            producer.send(tp.topic, key=b"k", value=value).get(timeout=30)
        return ends

    try:
        producer.send(tp.topic, key=b"k", value=b"before").get(timeout=30)
        consumer.assign([tp])
        consumer.seek_to_beginning(tp)
        monkeypatch.setattr(consumer, "end_offsets", end_offsets)
        assert [message.value for message in read_to_end(consumer, [tp])] == [b"before"]
        later: list[bytes] = []
        while len(later) < 2:
            later += [message.value for message in consumer.poll(timeout_ms=1000).get(tp, [])]
        assert later == [b"during 1", b"during 2"]
    finally:
        consumer.close()
        producer.close()
