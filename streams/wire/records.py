"""A Kafka record, before it is decoded and before it is sent; the only shapes that pass between core and clients."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Headers", "Incoming", "Outgoing", "cloud_event", "header"]

Headers = Sequence[tuple[str, bytes]]


@dataclass(frozen=True)
class Incoming:
    """A record as it was read; ``timestamp_ms`` is the broker's time of arrival."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(frozen=True)
class Outgoing:
    """A record to send; no timestamp, the broker sets it."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers


def header(headers: Headers, name: str) -> bytes | None:
    """Return the value of the last header called ``name``, None without one."""
    return next((value for key, value in reversed(headers) if key == name), None)


def cloud_event(kind: str, source: str, identity: str) -> Headers:
    """Return CloudEvents 1.0 attributes in the Kafka binary mode.

    Args:
        kind: ``ce_type`` without the leading ``acclimate.``, e.g. ``predictions.v2``.
        source: ``ce_source``, who made the event.
        identity: ``ce_id``, unique within the source.
    """
    return (
        ("ce_specversion", b"1.0"),
        ("ce_type", f"acclimate.{kind}".encode()),
        ("ce_source", source.encode()),
        ("ce_id", identity.encode()),
        ("content-type", b"application/json"),
    )
