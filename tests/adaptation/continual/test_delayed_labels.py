"""No label before its time, each label once: for any delay, share and stretch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.adaptation.continual.delayed_labels import arrivals, labelled_rows
from acclimate.adaptation.errors import ConfigError


@given(
    count=st.integers(1, 300),
    share=st.floats(0.01, 1),
    delay=st.integers(0, 400),
    every=st.integers(1, 70),
    seed=st.integers(0, 1000),
)
def test_no_label_comes_before_its_time_and_each_comes_once(
    count: int, share: float, delay: int, every: int, seed: int
) -> None:
    rows = labelled_rows(count, share, seed)
    seen: list[int] = []
    stretches = list(arrivals(count, rows, delay, every))
    for number, arrival in enumerate(stretches):
        handed_in = number == len(stretches) - 1 and arrival.now == count
        for row in arrival.labelled.tolist():
            assert row + delay < arrival.now or handed_in
        seen += arrival.labelled.tolist()
    assert seen == rows.tolist()
    assert np.concatenate([a.unlabelled for a in stretches]).tolist() == list(range(count))


def test_labels_come_in_the_first_stretch_that_may_have_them() -> None:
    rows = np.arange(10)
    found = [(a.now, a.labelled.tolist()) for a in arrivals(10, rows, delay=3, every=4)]
    assert found == [(4, [0]), (8, [1, 2, 3, 4]), (10, [5, 6]), (10, [7, 8, 9])]


def test_a_share_is_met_to_the_nearest_window_and_at_least_one() -> None:
    assert len(labelled_rows(1000, 0.05, 0)) == 50
    assert len(labelled_rows(3, 0.05, 0)) == 1
    assert labelled_rows(7, 1.0, 0).tolist() == list(range(7))
    assert labelled_rows(100, 0.2, 0).tolist() != labelled_rows(100, 0.2, 1).tolist()


def test_numbers_that_cannot_be_are_refused() -> None:
    for share, count in ((0.0, 5), (1.1, 5), (0.5, 0)):
        with pytest.raises(ConfigError, match="share"):
            labelled_rows(count, share, 0)
    for delay, every in ((-1, 1), (0, 0)):
        with pytest.raises(ConfigError, match="delay"):
            list(arrivals(5, np.arange(5), delay, every))
