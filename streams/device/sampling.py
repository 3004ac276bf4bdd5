"""What a device says of its sampling, and the rate that follows from it for the windows of one call."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral
from statistics import median

from acclimate.adaptation.errors import DataError
from acclimate.streams.wire.messages import RATE_HZ_MAX, STEP_SAMPLES_MAX
from acclimate.streams.wire.sampling_rate import same_rate

__all__ = ["Sampling", "six_digits"]

_WINDOWS_MIN = 4
_SPACING_MIN_MS = 200  # so that the millisecond of an event time is half a per cent
_REGULAR = 0.75


def six_digits(rate_hz: float) -> float:
    """Round a rate to what a float32 still tells apart, so that the ring gives back what was published.

    >>> six_digits(52.00000001), six_digits(12345.678)
    (52.0, 12345.7)
    """
    return float(f"{rate_hz:.6g}")


@dataclass(frozen=True)
class Sampling:
    """How a device samples, as far as it says so.

    Args:
        rate_hz: Samples per second, above 0, at most 1e9.
        step_samples: Samples from the start of one window to the start of the next, 1 to 2**31.

    Raises:
        DataError: A value is out of range.
    """

    rate_hz: float | None = None
    step_samples: int | None = None

    def __post_init__(self) -> None:
        if self.rate_hz is not None and not 0 < self.rate_hz <= RATE_HZ_MAX:
            raise DataError(
                f"sampling_rate_hz: expected above 0, at most {RATE_HZ_MAX:g}; found {self.rate_hz}", "sampling"
            )
        step = self.step_samples
        if step is not None and not (isinstance(step, Integral) and 1 <= step <= STEP_SAMPLES_MAX):
            raise DataError(f"step_samples: expected 1 to {STEP_SAMPLES_MAX} whole samples, found {step}", "sampling")

    def rate_of(self, event_times_ms: Sequence[int]) -> float | None:
        """Return the rate of windows with these event times, in Hz to six digits; None where nothing tells it.

        It is the rate given, else step over median time from window to window. The latter needs at least four windows
        and 200 ms, and three quarters of the times within 2 % of the median: gaps must not pass for another rate.
        """
        if self.rate_hz is not None:
            return six_digits(self.rate_hz)
        if self.step_samples is None or len(event_times_ms) < _WINDOWS_MIN:
            return None
        spacings_ms = [later - earlier for earlier, later in pairwise(event_times_ms)]
        spacing_ms = median(spacings_ms)
        if spacing_ms < _SPACING_MIN_MS:
            return None
        regular = sum(same_rate(each, spacing_ms) for each in spacings_ms)
        if regular < _REGULAR * len(spacings_ms):
            return None
        return six_digits(1000 * self.step_samples / spacing_ms)
