"""Event times hint at a wrong rate; nothing that has another reason may be taken for one."""

import numpy as np
import pytest

from acclimate.streams.serving.sampling_rate import rate_flag
from acclimate.streams.wire.codec import FeatureBatch

START_MS = 1_700_000_000_000


def batch(times: list[int], rate_hz: float | None = None, step: int | None = None) -> FeatureBatch:
    """Return a record with a window at each time, milliseconds from the start."""
    windows = np.zeros((len(times), 1, 2), np.float32)
    return FeatureBatch("pump-7", "00ff00ff00ff00ff", 0, [START_MS + time for time in times], windows, rate_hz, step)


def every(spacing_ms: int, windows: int = 6) -> list[int]:
    return [spacing_ms * i for i in range(windows)]


# A model of 52 Hz, trained on a window every 52 samples: one second.
@pytest.mark.parametrize(
    ("times", "flagged"),
    [
        (every(1000), False),
        (every(500), True),  # twice the rate
        (every(2000, windows=2), True),  # half of it
        (every(981), False),  # 52 samples in 0.981 s are 53.0 Hz, 1.9 % off
        (every(980), True),  # 53.06 Hz, 2.04 % off
        ([0, 1001, 1999, 3000, 4001, 4999], False),  # the clock's millisecond
        ([0, 1000, 2000, 9000, 10_000, 11_000], False),  # a gap
        ([0, 500, 9000, 9500, 10_000, 10_500], True),  # twice the rate, and a gap
        ([0], False),  # one window
        ([0, 0, 0], False),  # one time for all: the device has given none
        ([3000, 2000, 1000], False),  # backwards
        ([-(2**63) - START_MS, 2**63 - 1 - START_MS], True),
    ],
)
def test_only_the_usual_time_between_windows_counts(times: list[int], flagged: bool) -> None:
    assert rate_flag(batch(times), 52.0, 52) is flagged


def test_a_difference_within_the_millisecond_of_event_times_says_nothing() -> None:
    # 12 samples at 1600 Hz last 7.5 ms: 8 ms and 7 ms are what a clock of milliseconds can say, 6 ms is not.
    assert not rate_flag(batch(every(8)), 1600.0, 12)
    assert not rate_flag(batch(every(7)), 1600.0, 12)
    assert rate_flag(batch(every(6)), 1600.0, 12)


def test_the_records_own_step_counts_before_that_of_the_training() -> None:
    assert not rate_flag(batch(every(500), step=26), 52.0, 52)
    assert rate_flag(batch(every(1000), step=26), 52.0, 52)
    assert rate_flag(batch(every(1000), step=26), 52.0, None)


def test_nothing_is_flagged_where_the_record_names_its_rate_or_nothing_is_known() -> None:
    assert not rate_flag(batch(every(500), rate_hz=52.0), 52.0, 52)
    assert not rate_flag(batch(every(500)), None, 52)
    assert not rate_flag(batch(every(500)), 52.0, None)
