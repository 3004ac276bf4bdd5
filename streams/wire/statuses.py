"""Read ``.status``: what workers and devices say that they run, and which offsets have crashed a worker."""

from dataclasses import dataclass
from typing import TypeVar

from pydantic import ValidationError

from acclimate.streams.wire.messages import CrashMark, DeviceStatus, WorkerStatus

__all__ = ["Crashed", "Running", "parse_status"]

# Keys of crashes had no agent when there was one alone.
_ONLY_AGENT = "adapt"

M = TypeVar("M", WorkerStatus, DeviceStatus, CrashMark)


@dataclass(frozen=True)
class Running:
    """The word of a worker or a device.

    Attributes:
        name: ``worker/NAME`` or ``device/NAME``.
        status: What it runs; None where it has stopped, or has said nothing that can be read.
    """

    name: str
    status: WorkerStatus | DeviceStatus | None


@dataclass(frozen=True)
class Crashed:
    """The crashes of an agent at one partition of a topic; `mark` is None where they are forgotten or unreadable."""

    agent: str
    topic: str
    partition: int
    mark: CrashMark | None


def parse_status(key: bytes | None, value: bytes | None) -> Running | Crashed | None:
    """Return what a record says; None for everything else in the topic.

    A value that cannot be read counts as none: whoever reads must not trip over noise, and must not believe an older
    word either.
    """
    name = (key or b"").decode("utf-8", "replace")
    kind, _, rest = name.partition("/")
    if kind == "worker":
        return Running(name, _parsed(WorkerStatus, value))
    if kind == "device":
        return Running(name, _parsed(DeviceStatus, value))
    places = rest.split("/")
    if len(places) == 2:
        places = [_ONLY_AGENT, *places]
    if kind != "crash" or len(places) != 3 or not (places[2].isascii() and places[2].isdigit()):
        return None
    return Crashed(places[0], places[1], int(places[2]), _parsed(CrashMark, value))


def _parsed(kind: type[M], value: bytes | None) -> M | None:
    try:
        return None if value is None else kind.model_validate_json(value)
    except ValidationError:
        return None
