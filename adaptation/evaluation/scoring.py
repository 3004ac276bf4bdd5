"""Scores of answered windows, computed where the labels are: after the method has answered.

macro F1 and recall    over the classes that occur among the labels (1)
nll                    mean of -ln p_label, p at least 1e-12 (2)
ece                    sum over 15 equal bins of confidence of share * |accuracy - mean confidence| (3)
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.adaptation.errors import ContractError

__all__ = ["Scores", "collapsed", "score", "tail_start", "top_share"]

_BINS = 15
_SMALLEST = 1e-12
_COLLAPSED_SHARE = 0.95
_DIVERSE_SHARE = 0.8
_TAIL_SHARE = 0.25


@dataclass(frozen=True)
class Scores:
    """Scores of one group.

    Attributes:
        n: Windows.
        accuracy: Share answered right, 0 to 1.
        macro_f1: Mean F1 over the classes that occur, 0 to 1.
        worst_class_recall: Least recall over the classes that occur, 0 to 1.
        nll: Negative log-likelihood in nats.
        ece: Expected calibration error, 0 to 1.
    """

    n: int
    accuracy: float
    macro_f1: float
    worst_class_recall: float
    nll: float
    ece: float


def score(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> Scores:
    """Score answers (n, K) against labels (n,).

    Raises:
        ContractError: A probability is not finite: the method is broken, and no score says so.

    >>> score(np.array([[0.9, 0.1], [0.4, 0.6]], dtype=np.float32), np.array([0, 0])).accuracy
    0.5
    """
    if not np.isfinite(probabilities).all():
        broken = int((~np.isfinite(probabilities).all(axis=1)).sum())
        raise ContractError(f"{broken} of {len(labels)} answers hold probabilities that are NaN or infinite")
    answers = probabilities.argmax(axis=1)
    right = answers == labels
    recalls, f1 = [], []
    for label in np.unique(labels):  # (1)
        hits = float((right & (labels == label)).sum())
        truth, given = float((labels == label).sum()), float((answers == label).sum())
        recalls.append(hits / truth)
        f1.append(2.0 * hits / (truth + given))
    likelihood = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return Scores(
        n=len(labels),
        accuracy=float(right.mean()),
        macro_f1=float(np.mean(f1)),
        worst_class_recall=min(recalls),
        nll=float(-np.log(np.maximum(likelihood, _SMALLEST)).mean()),  # (2)
        ece=_calibration_error(probabilities.max(axis=1).astype(np.float64), right),
    )


def tail_start(labels: NDArray[np.int64]) -> int | None:
    """Return where the part begins on which a collapse would show, or None where no part can show it.

    The last quarter, or as much more as it takes until its most frequent true class is at most 80 % of it: in time
    order the last quarter may truly hold one class.

    >>> tail_start(np.repeat([0, 1], 50)), tail_start(np.zeros(100, dtype=np.int64))
    (35, None)
    """
    n = len(labels)
    for step in range(int(20 * (1 - _TAIL_SHARE)), -1, -1):
        start = n * step // 20
        if start < n and top_share(labels[start:]) <= _DIVERSE_SHARE:
            return start
    return None


def top_share(classes: NDArray[np.int64]) -> float:
    """Return the share of the most frequent class, of at least one window.

    >>> top_share(np.array([2, 2, 2, 0]))
    0.75
    """
    return float(np.bincount(classes).max() / len(classes))


def collapsed(tail_share: float | None, source_tail_share: float | None) -> bool:
    """Say whether a method collapsed: on the tail (`tail_start`), where the truth is diverse, more than 95 % of its
    answers are one class while the source's are not.

    >>> collapsed(0.99, 0.6), collapsed(0.99, 0.97), collapsed(None, None)
    (True, False, False)
    """
    if tail_share is None or source_tail_share is None:
        return False
    return tail_share > _COLLAPSED_SHARE >= source_tail_share


def _calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    bins = np.clip(np.ceil(confidence * _BINS).astype(np.int64) - 1, 0, _BINS - 1)
    gap = np.bincount(bins, right.astype(np.float64) - confidence, _BINS)  # (3)
    return float(np.abs(gap).sum() / len(right))
