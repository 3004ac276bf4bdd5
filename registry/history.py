"""What ever was in force in a fleet, asked for, judged and approved: the entries of ``.history``, read and checked."""

from dataclasses import dataclass

from registry.envelope import Envelope

__all__ = ["Entry"]


@dataclass(frozen=True)
class Entry:
    """One statement as it was appended.

    Attributes:
        offset: Its place.
        at_ms: When the broker took it, milliseconds since 1970.
        envelope: The statement; its signature is not looked at yet.
    """

    offset: int
    at_ms: int
    envelope: Envelope
