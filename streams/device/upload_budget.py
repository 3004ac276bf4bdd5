"""How many bytes a device may upload: a bucket that time fills and uploads empty, exact in whole numbers."""

from dataclasses import dataclass, replace
from typing import Self

__all__ = ["UploadBudget"]

_DAY_MS = 24 * 3600 * 1000


@dataclass(frozen=True)
class UploadBudget:
    """At most `bytes_per_day` bytes in any 24 hours: half of it may go at once, the other half comes with time.

    A clock that is set back refills nothing by that; one that is set forward refills what fits.

    Args:
        bytes_per_day: Upper limit of what is taken in any 24 hours.
        left: What may be taken now, in bytes times the milliseconds of a day.
        at_ms: When that was so, milliseconds.
    """

    bytes_per_day: int
    left: int
    at_ms: int

    @classmethod
    def full(cls, bytes_per_day: int, now_ms: int) -> Self:
        """Return a bucket from which nothing was taken yet."""
        return cls(bytes_per_day, (bytes_per_day // 2) * _DAY_MS, now_ms)

    @property
    def bytes_at_once(self) -> int:
        """The most that can ever be taken at once."""
        return self.bytes_per_day // 2

    @property
    def left_bytes(self) -> int:
        """What may be taken now."""
        return self.left // _DAY_MS

    def refilled(self, now_ms: int) -> Self:
        """Return the bucket at a later time.

        >>> UploadBudget(1000, 0, 0).refilled(3_600_000).left_bytes
        20
        """
        gained = max(0, now_ms - self.at_ms) * (self.bytes_per_day - self.bytes_at_once)
        return replace(self, left=min(self.bytes_at_once * _DAY_MS, self.left + gained), at_ms=now_ms)

    def without(self, size_bytes: int) -> Self:
        """Return the bucket after so many bytes were taken.

        Raises:
            ValueError: There are fewer.
        """
        if size_bytes > self.left_bytes:
            raise ValueError(f"{size_bytes} bytes asked for, {self.left_bytes} left")
        return replace(self, left=self.left - size_bytes * _DAY_MS)
