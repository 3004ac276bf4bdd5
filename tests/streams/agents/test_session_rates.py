"""One rate per session, in a memory that is bounded and gives a record the same verdict again."""

import numpy as np
import pytest

from acclimate.adaptation.errors import DataError
from acclimate.streams.agents.session_rates import SessionRates
from acclimate.streams.wire.codec import FeatureBatch


def taken(rates: SessionRates, session: int, rate_hz: float | None, device: str = "pump-7") -> bool:
    windows = np.zeros((1, 1, 1), np.float32)
    try:
        rates.check(FeatureBatch(device, f"{session:016x}", 0, (0,), windows, rate_hz))
    except DataError:
        return False
    return True


def test_another_rate_in_a_session_is_refused_and_the_first_stays() -> None:
    rates = SessionRates()
    assert taken(rates, 1, None)
    verdicts = [taken(rates, 1, rate_hz) for rate_hz in (52.0, 53.0, 54.0, 104.0, None, 52.0)]
    assert verdicts == [True, True, False, False, True, True]
    assert taken(rates, 2, 104.0)
    assert taken(rates, 1, 104.0, device="pump-8")


def test_records_that_are_read_again_get_the_same_verdicts() -> None:
    rates = SessionRates(sessions_max=8)
    records = [(1, 52.0), (2, 104.0), (1, 104.0), (3, 10.0), (2, 52.0), (4, 1.0), (1, 52.0), (5, 2.0)]
    first = [taken(rates, *record) for record in records]
    assert first == [True, True, False, True, False, True, True, True]
    for start in range(len(records)):  # a batch that runs again record by record begins anywhere
        assert [taken(rates, *record) for record in records[start:]] == first[start:]


def test_the_session_that_was_silent_for_the_longest_is_forgotten() -> None:
    rates = SessionRates(sessions_max=3)
    for session in (1, 2, 3):
        assert taken(rates, session, 52.0)
    assert not taken(rates, 1, 104.0)  # refused, and heard of
    assert taken(rates, 4, 52.0)
    assert not taken(rates, 1, 104.0)
    assert not taken(rates, 3, 104.0)
    assert taken(rates, 2, 104.0)  # forgotten


@pytest.mark.parametrize("sessions", [10_000])
def test_the_memory_stays_bounded(sessions: int) -> None:
    rates = SessionRates()
    for session in range(sessions):
        assert taken(rates, session, 52.0)
    assert len(rates._first_hz) == 4096
