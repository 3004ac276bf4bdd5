"""Dead letters in the log: each one is in its topic, and a flood of them must not fill the log."""

import logging

from acclimate.streams.wire.records import Outgoing, header

__all__ = ["Refused"]

log = logging.getLogger(__name__)


class Refused:
    """Count dead letters and say so now and then."""

    def __init__(self) -> None:
        self.count = 0
        self.last: Outgoing | None = None
        self.logged_s = float("-inf")

    def note(self, letter: Outgoing) -> None:
        """Count a dead letter."""
        self.count += 1
        self.last = letter

    def log_every(self, interval_s: float, now_s: float) -> None:
        """Say how many came, at most once in so many seconds; `now_s` is any clock that only rises."""
        if self.last is None or now_s - self.logged_s < interval_s:
            return
        message = header(self.last.headers, "__connect.errors.exception.message") or b""
        log.warning(
            "event=refused records=%d last_key=%r last_reason=%r see=`acclimate dlq list`",
            self.count,
            (self.last.key or b"")[:64],
            message.decode("utf-8", "replace")[:200],
        )
        self.count, self.last, self.logged_s = 0, None, now_s
