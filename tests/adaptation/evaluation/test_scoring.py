"""Scores against hand-worked values and an independent computation."""

import math

import numpy as np
import pytest

from acclimate.adaptation.errors import ContractError
from acclimate.adaptation.evaluation.scoring import collapsed, score, tail_start, top_share

PROBABILITIES = np.array([[0.8, 0.2, 0.0], [0.6, 0.3, 0.1], [0.1, 0.7, 0.2], [0.5, 0.3, 0.2]], dtype=np.float32)
LABELS = np.array([0, 1, 1, 0])


def test_scores_equal_values_worked_by_hand() -> None:
    scores = score(PROBABILITIES, LABELS)  # answers 0, 0, 1, 0
    assert scores.n == 4
    assert scores.accuracy == 0.75
    assert scores.macro_f1 == pytest.approx((4 / 5 + 2 / 3) / 2)  # class 2 occurs nowhere and does not count
    assert scores.worst_class_recall == 0.5
    assert scores.nll == pytest.approx(-(math.log(0.8) + math.log(0.3) + math.log(0.7) + math.log(0.5)) / 4, rel=1e-6)
    # One window per bin: 0.8 right, 0.6 wrong, 0.7 right, 0.5 right.
    assert scores.ece == pytest.approx((0.2 + 0.6 + 0.3 + 0.5) / 4, rel=1e-6)


def test_calibration_error_equals_a_loop_over_bins() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(4, 0.5), 500).astype(np.float32)
    labels = rng.integers(0, 4, 500)
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    expected = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert score(probabilities, labels).ece == pytest.approx(expected, rel=1e-9)


def test_a_wrong_answer_given_with_certainty_costs_much_but_not_infinitely() -> None:
    scores = score(np.array([[1.0, 0.0]], dtype=np.float32), np.array([1]))
    assert scores.nll == pytest.approx(-math.log(1e-12))
    assert scores.accuracy == scores.macro_f1 == scores.worst_class_recall == 0.0
    assert scores.ece == 1.0


def test_answers_that_are_not_finite_are_no_answers() -> None:
    with pytest.raises(ContractError, match="1 of 2 answers"):
        score(np.array([[np.nan, 0.5], [0.5, 0.5]], dtype=np.float32), np.array([0, 1]))


def test_a_collapse_is_looked_for_where_the_truth_is_diverse() -> None:
    labels = np.repeat([0, 1, 2, 3], 25)  # the last quarter is one class: the tail must begin earlier
    start = tail_start(labels)
    assert start is not None
    assert top_share(labels[start:]) <= 0.8
    assert start < 75
    assert tail_start(np.arange(100) % 4) == 75
    assert tail_start(np.zeros(50, dtype=np.int64)) is None
    assert tail_start(np.zeros(1, dtype=np.int64)) is None


def test_a_collapse_is_the_methods_own() -> None:
    assert collapsed(1.0, 0.7)
    assert not collapsed(0.95, 0.7)
    assert not collapsed(1.0, 0.99)  # the source answers one class as well
    assert not collapsed(1.0, None)
