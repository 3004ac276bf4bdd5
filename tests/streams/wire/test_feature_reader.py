"""The newest traffic of a fleet, bounded, in each device's order; what cannot be read is counted and takes no place."""

import numpy as np
import pytest

from acclimate.infra.settings import Settings
from acclimate.streams.wire.codec import FeatureBatch, encode_features
from acclimate.streams.wire.connect import kafka_python_options
from acclimate.streams.wire.feature_reader import FeatureReader, PlacedBatch
from acclimate.streams.wire.topics import create_topics, topic_name

pytestmark = pytest.mark.kafka


def read(settings: Settings, windows: int, bytes_max: int = 10**7) -> tuple[list[PlacedBatch], dict[str, int]]:
    with FeatureReader(settings, channels=2, length=4) as reader:
        return list(reader.recent(windows, bytes_max)), dict(reader.refused)


def numbers(found: list[PlacedBatch], device: str) -> list[int]:
    """Return the numbers of a device's windows; each carries its own in its values."""
    return [int(window[0, 0]) for each in found if each.batch.device == device for window in each.batch.windows]


@pytest.fixture
def settings(kafka: str, fleet: str) -> Settings:
    """Give a fleet of two devices with 200 records of two windows each, and noise between and after them."""
    from kafka import KafkaProducer

    settings = Settings(bootstrap=kafka, fleet=fleet)
    create_topics(settings, partitions=2)
    producer = KafkaProducer(**kafka_python_options(settings), acks="all")
    topic = topic_name(fleet, "features")
    for record in range(200):
        for place, device in enumerate(("left", "right")):
            windows = np.full((2, 2, 4), 2 * record, np.float32)
            windows[1] += 1
            batch = FeatureBatch(device, "00ff00ff00ff00ff", 2 * record, (1, 2), windows)
            producer.send(topic, key=device.encode(), value=encode_features(batch), partition=place)
        if record % 10 == 9:
            producer.send(topic, key=b"left", value=b"noise", partition=0)
    wide = FeatureBatch("left", "00ff00ff00ff00ff", 400, (1,), np.zeros((1, 3, 4), np.float32))
    producer.send(topic, key=b"left", value=encode_features(wide), partition=0)
    producer.close()
    return settings


def test_the_newest_windows_come_in_order_an_equal_part_of_each_partition(settings: Settings):
    found, refused = read(settings, windows=100)
    for device in ("left", "right"):
        assert numbers(found, device) == list(range(350, 400))
    assert refused == {"wrong_shape": 1, "not_json": 3}  # among the newest 26 records of one partition
    assert all(each.timestamp_ms > 1_600_000_000_000 for each in found)
    assert [each.offset for each in found if each.partition == 1] == list(range(175, 200))


def test_less_traffic_than_asked_for_is_given_whole(settings: Settings):
    found, refused = read(settings, windows=10_000)
    assert numbers(found, "left") == numbers(found, "right") == list(range(400))
    assert refused == {"wrong_shape": 1, "not_json": 20}


def test_bytes_are_bounded_too(settings: Settings):
    found, _ = read(settings, windows=10_000, bytes_max=10_000)
    size = len(encode_features(found[-1].batch))
    assert 10_000 <= size * len(found) <= 10_000 + 2 * size  # each partition's share, and its last record


def test_windows_of_another_rate_than_the_models_are_passed_over(kafka: str, fleet: str):
    from kafka import KafkaProducer

    settings = Settings(bootstrap=kafka, fleet=fleet)
    create_topics(settings, partitions=1)
    producer = KafkaProducer(**kafka_python_options(settings), acks="all")
    for seq, rate_hz in enumerate((52.0, 104.0, None)):
        windows = np.full((1, 2, 4), seq, np.float32)
        batch = FeatureBatch("left", "00ff00ff00ff00ff", seq, (1,), windows, rate_hz)
        producer.send(topic_name(fleet, "features"), key=b"left", value=encode_features(batch))
    producer.close()
    with FeatureReader(settings, 2, 4, sampling_rate_hz=52.0) as reader:
        assert numbers(list(reader.recent(10, 10**7)), "left") == [0, 2]
        assert reader.refused == {"wrong_rate": 1}


def test_a_fleet_without_traffic_gives_nothing(kafka: str, fleet: str):
    settings = Settings(bootstrap=kafka, fleet=fleet)
    assert read(settings, windows=10) == ([], {})
    create_topics(settings, partitions=2)
    assert read(settings, windows=10) == ([], {})
