"""The rate that a device's windows tell: the one given, or the one in regular event times."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.adaptation.errors import DataError
from acclimate.streams.device.sampling import Sampling, six_digits


def every(spacing_ms: int, windows: int) -> list[int]:
    return [spacing_ms * i for i in range(windows)]


@pytest.mark.parametrize(
    ("times", "rate_hz"),
    [
        (every(1000, 4), 52.0),
        (every(500, 20), 104.0),
        (every(1001, 4), 51.9481),  # 52 / 1.001 = 51.94805...
        ([0, 1000, 2000, 9000, 10_000], 52.0),  # one gap in four times
        ([0, 1000, 2000, 9000], None),  # one in three
        (every(1000, 3), None),
        ([0], None),
        (every(199, 50), None),  # a millisecond would be too large a part of it
        (every(200, 50), 260.0),
        ([0] * 8, None),  # one time for all
        ([3000, 2000, 1000, 0], None),
        ([0, 900, 2000, 2950, 4100, 5000], None),  # too irregular
    ],
)
def test_regular_event_times_tell_the_rate_and_others_nothing(times: list[int], rate_hz: float | None) -> None:
    assert Sampling(step_samples=52).rate_of(times) == rate_hz


def test_the_rate_given_counts_whatever_the_event_times_say() -> None:
    assert Sampling(52.0, 52).rate_of(every(500, 20)) == 52.0
    assert Sampling(12345.678).rate_of([0]) == 12345.7
    assert Sampling().rate_of(every(1000, 20)) is None


@given(st.floats(1e-9, 1e9))
def test_six_digits_survive_a_float32(rate_hz: float) -> None:
    rounded = six_digits(rate_hz)
    assert six_digits(float(np.float32(rounded))) == rounded
    assert rounded == pytest.approx(rate_hz, rel=5.1e-6)


@pytest.mark.parametrize(
    ("rate_hz", "step"),
    [(0.0, None), (-1.0, None), (float("nan"), None), (float("inf"), None), (None, 0), (None, 2**31 + 1), (None, 1.5)],
)
def test_a_sampling_out_of_range_is_refused(rate_hz: float | None, step: int | None) -> None:
    with pytest.raises(DataError, match="expected") as caught:
        Sampling(rate_hz, step)
    assert caught.value.reason == "sampling"
