"""Metrics of forgetting against a case worked out by hand, and what must hold for any matrix."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from acclimate.adaptation.continual.accuracy_matrix import AccuracyMatrix
from acclimate.adaptation.errors import ConfigError

HAND = AccuracyMatrix(
    np.array([[0.9, 0.3, 0.5], [0.7, 0.8, 0.4], [0.6, 0.7, 1.0]]),
    np.array([0.2, 0.1, 0.6]),
)


def test_a_case_worked_out_by_hand() -> None:
    assert HAND.accuracy == pytest.approx((0.6 + 0.7 + 1.0) / 3)
    assert HAND.learning_accuracy == pytest.approx((0.9 + 0.8 + 1.0) / 3)
    assert HAND.backward_transfer == pytest.approx(((0.6 - 0.9) + (0.7 - 0.8)) / 2)
    assert HAND.forward_transfer == pytest.approx(((0.3 - 0.1) + (0.4 - 0.6)) / 2)
    assert HAND.forgetting == pytest.approx(((0.9 - 0.6) + (0.8 - 0.7)) / 2)


def test_a_frozen_model_forgets_nothing_and_transfers_nothing() -> None:
    start = np.array([0.2, 0.5, 0.9])
    frozen = AccuracyMatrix(np.tile(start, (3, 1)), start)
    assert (frozen.backward_transfer, frozen.forward_transfer, frozen.forgetting) == (0.0, 0.0, 0.0)


@given(arrays(np.float64, (4, 4), elements=st.floats(0, 1)), arrays(np.float64, 4, elements=st.floats(0, 1)))
def test_forgetting_is_at_least_what_backward_transfer_lost(values: np.ndarray, start: np.ndarray) -> None:
    matrix = AccuracyMatrix(values, start)
    assert matrix.forgetting >= -matrix.backward_transfer - 1e-12


@given(arrays(np.float64, (3, 3), elements=st.floats(0, 1)), st.floats(0, 1))
def test_forward_transfer_does_not_feel_the_last_training(values: np.ndarray, last: float) -> None:
    start = np.array([0.1, 0.2, 0.3])
    other = values.copy()
    other[-1] = last
    assert AccuracyMatrix(values, start).forward_transfer == AccuracyMatrix(other, start).forward_transfer


def test_a_single_domain_has_an_accuracy_and_nothing_to_forget() -> None:
    single = AccuracyMatrix(np.array([[0.7]]), np.array([0.5]))
    assert (single.accuracy, single.backward_transfer, single.forward_transfer, single.forgetting) == (0.7, 0, 0, 0)


@pytest.mark.parametrize(
    ("values", "start"),
    [(np.zeros((2, 3)), np.zeros(2)), (np.zeros((0, 0)), np.zeros(0)), (np.full((1, 1), np.nan), np.zeros(1))],
)
def test_a_matrix_that_cannot_be_is_refused(values: np.ndarray, start: np.ndarray) -> None:
    with pytest.raises(ConfigError):
        AccuracyMatrix(values, start)
