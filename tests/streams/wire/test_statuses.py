"""A status that cannot be read must neither stop a reader nor leave an older word standing."""

import pytest

from acclimate.streams.wire.messages import CrashMark, DeviceStatus, WorkerStatus
from acclimate.streams.wire.statuses import Crashed, Running, parse_status
from tests.support.answers import SESSION, receipt

WORKER = WorkerStatus(schema_version=1, receipt=receipt("a" * 64, 3), refusals={"expired": 2})
DEVICE = DeviceStatus(schema_version=1, session=SESSION)
MARK = CrashMark(schema_version=1, offset=7, count=2, error="ValueError()")


@pytest.mark.parametrize(
    ("key", "status", "said"),
    [
        (b"worker/host-1", WORKER, Running("worker/host-1", WORKER)),
        (b"device/pump-7", DEVICE, Running("device/pump-7", DEVICE)),
        (b"crash/adapt/plant.features/3", MARK, Crashed("adapt", "plant.features", 3, MARK)),
        (b"crash/drift/plant.features/3", MARK, Crashed("drift", "plant.features", 3, MARK)),
        (b"crash/plant.features/3", MARK, Crashed("adapt", "plant.features", 3, MARK)),  # from before
    ],
)
def test_each_kind_is_read_by_its_key_and_a_tombstone_takes_it_back(key: bytes, status, said) -> None:
    assert parse_status(key, status.model_dump_json().encode()) == said
    forgotten = parse_status(key, None)
    assert forgotten == parse_status(key, b"noise") == parse_status(key, b"{}")
    assert (isinstance(forgotten, Running) and forgotten.status is None) or forgotten.mark is None


@pytest.mark.parametrize(
    "key",
    [None, b"", b"\xff", b"controller", b"crash/f/x", b"crash/f/\xc2\xb2", b"crash/a/b/c/1", b"crash/1"],
)
def test_other_keys_say_nothing(key: bytes | None) -> None:
    assert parse_status(key, WORKER.model_dump_json().encode()) is None
