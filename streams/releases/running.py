"""What receivers say that they run, and what devices were answered with: from ``.status`` and ``.predictions``."""

from collections.abc import Mapping
from dataclasses import dataclass

from acclimate.infra.settings import Settings
from acclimate.streams.wire.predictions import parse_prediction
from acclimate.streams.wire.reading import read_topic
from acclimate.streams.wire.statuses import Running, parse_status

__all__ = ["DeviceRow", "ReceiverRow", "behind", "device_rows", "receiver_rows"]


@dataclass(frozen=True)
class ReceiverRow:
    """A worker or a device that runs bundles, by its own newest word.

    Attributes:
        name: ``worker/NAME`` or ``device/NAME``.
        at_ms: When the broker took it, milliseconds since 1970.
        epoch, bundle, mode: Epoch, digest and mode of the stable bundle that it runs; 0 and None for none.
        refusals: Releases that it has not taken, since its start.
        last_refusal: What was wrong last.
        stale: The release that it runs has expired, and no newer one has reached it.
    """

    name: str
    at_ms: int
    epoch: int
    bundle: str | None
    mode: str | None
    refusals: int
    last_refusal: str | None
    stale: bool


@dataclass(frozen=True)
class DeviceRow:
    """What a device was answered with last.

    Attributes:
        device: Its id.
        at_ms: When the broker took the answer, milliseconds since 1970.
        epoch, bundle, mode: That the answer names.
        windows: Answered in the time that was looked at.
    """

    device: str
    at_ms: int
    epoch: int
    bundle: str
    mode: str
    windows: int


def receiver_rows(settings: Settings) -> list[ReceiverRow]:
    """Return the newest word of every receiver that has not said that it stopped, by name.

    Raises:
        KafkaError: The broker does not answer.
    """
    newest: dict[str, ReceiverRow | None] = {}
    for message in read_topic(settings, "status"):
        said = parse_status(message.key, message.value)
        if isinstance(said, Running):
            newest[said.name] = _receiver_row(said, message.timestamp)
    return [row for _, row in sorted(newest.items()) if row is not None]


def behind(settings: Settings, epoch: int) -> list[str]:
    """Return the receivers that run an older epoch, by name.

    Raises:
        KafkaError: The broker does not answer.
    """
    return [row.name for row in receiver_rows(settings) if row.epoch < epoch]


def device_rows(settings: Settings, since_ms: int) -> Mapping[str, DeviceRow]:
    """Return what each device was answered with last, by device.

    Args:
        settings: Broker and fleet.
        since_ms: Older answers are not looked at; milliseconds since 1970.

    Raises:
        KafkaError: The broker does not answer.
    """
    rows: dict[str, DeviceRow] = {}
    for message in read_topic(settings, "predictions", since_ms):
        record = parse_prediction(message.value)
        if record is not None:
            before = rows[record.device].windows if record.device in rows else 0
            receipt, windows = record.receipt, before + len(record.labels)
            said = (receipt.epoch, receipt.bundle, receipt.mode)
            rows[record.device] = DeviceRow(record.device, message.timestamp, *said, windows)
    return rows


def _receiver_row(said: Running, at_ms: int) -> ReceiverRow | None:
    status = said.status
    if status is None:
        return None
    receipt = status.receipt
    return ReceiverRow(
        said.name,
        at_ms,
        receipt.epoch if receipt else 0,
        receipt.bundle if receipt else None,
        receipt.mode if receipt else None,
        sum(status.refusals.values()),
        status.last_refusal,
        status.stale,
    )
