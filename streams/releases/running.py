"""What receivers say that they run, and what devices were answered with: from ``.status`` and ``.predictions``."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from infra.settings import Settings
from streams.wire.reading import read_topic

__all__ = ["DeviceRow", "ReceiverRow", "behind", "device_rows", "receiver_rows"]


@dataclass(frozen=True)
class ReceiverRow:
    """A worker or a device that runs bundles, by its own newest word.

    Attributes:
        name: ``worker/NAME`` or ``device/NAME``.
        at_ms: When the broker took it, milliseconds since 1970.
        epoch, bundle: Of the stable bundle that it runs; 0 and None for none.
        refusals: Releases that it has not taken, since its start.
        last_refusal: What was wrong last.
        stale: The release that it runs has expired, and no newer one has reached it.
    """

    name: str
    at_ms: int
    epoch: int
    bundle: str | None
    refusals: int
    last_refusal: str | None
    stale: bool


@dataclass(frozen=True)
class DeviceRow:
    """What a device was answered with last.

    Attributes:
        device: Its id.
        at_ms: When the broker took the answer, milliseconds since 1970.
        epoch, bundle: That the answer names.
        windows: Answered in the time that was looked at.
    """

    device: str
    at_ms: int
    epoch: int
    bundle: str
    windows: int


def receiver_rows(settings: Settings) -> list[ReceiverRow]:
    """Return the newest word of every receiver that has not said that it stopped, by name.

    Raises:
        KafkaError: The broker does not answer.
    """
    newest: dict[str, Any] = {}
    for message in read_topic(settings, "status"):
        key = (message.key or b"").decode("utf-8", "replace")
        if key.startswith(("worker/", "device/")):
            newest[key] = message
    rows = [_receiver_row(name, message) for name, message in sorted(newest.items()) if message.value is not None]
    return [row for row in rows if row is not None]


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
        row = _device_row(message, rows)
        if row is not None:
            rows[row.device] = row
    return rows


def _receiver_row(name: str, message: Any) -> ReceiverRow | None:
    try:
        status = json.loads(message.value)
        receipt = status.get("receipt") or {}
        epoch, bundle = int(receipt.get("epoch") or 0), receipt.get("bundle")
        refusals = sum(map(int, (status.get("refusals") or {}).values()))
    except (ValueError, TypeError, AttributeError):
        return None  # not one of ours
    return ReceiverRow(
        name, message.timestamp, epoch, bundle, refusals, status.get("last_refusal"), bool(status.get("stale"))
    )


def _device_row(message: Any, rows: Mapping[str, DeviceRow]) -> DeviceRow | None:
    try:
        value = orjson.loads(message.value)
        device, receipt, windows = str(value["device"]), value["receipt"], len(value["windows"])
        before = rows[device].windows if device in rows else 0
        return DeviceRow(device, message.timestamp, int(receipt["epoch"]), str(receipt["bundle"]), before + windows)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None
