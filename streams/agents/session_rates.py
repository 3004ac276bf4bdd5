"""The first sampling rate of each session that a worker has answered lately."""

from acclimate.streams.wire.codec import FeatureBatch
from acclimate.streams.wire.sampling_rate import check_session_rate

__all__ = ["SessionRates"]


class SessionRates:
    """Remembers rates in memory alone: a restart forgets them, and a partition that moves leaves them behind.

    A record that is read again meets the same memory and gets the same verdict, as long as fewer sessions than
    ``sessions_max`` came in between; a worker reads at most ``ACCLIMATE_IN_FLIGHT_MAX`` records again.

    Args:
        sessions_max: The session that was silent for the longest is forgotten beyond so many.
    """

    def __init__(self, sessions_max: int = 4096) -> None:
        self._sessions_max = sessions_max
        self._first_hz: dict[tuple[str, str], float] = {}

    def check(self, batch: FeatureBatch) -> None:
        """Refuse windows of another rate than the first that their session named.

        Raises:
            DataError: ``wrong_rate``.
        """
        if batch.sampling_rate_hz is None:
            return
        session = (batch.device, batch.session)
        first_hz = self._first_hz.pop(session, batch.sampling_rate_hz)
        self._first_hz[session] = first_hz  # in again as the last, refused or not
        if len(self._first_hz) > self._sessions_max:
            del self._first_hz[next(iter(self._first_hz))]
        check_session_rate(batch.sampling_rate_hz, first_hz)
