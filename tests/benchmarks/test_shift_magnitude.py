"""The shift study's figures, on scores made by hand."""

import numpy as np
import pytest

from benchmarks.shift_magnitude import SCORES, Scored, markdown, summarise

LABELS = np.repeat([0, 1], 10)
ONE, TWO = np.arange(10), np.arange(10, 20)  # two stretches, each of one class


def scored(values: list[float], wrong: int = 0) -> Scored:
    """Score each window alike by every score; the first ``wrong`` windows are classified wrongly."""
    return Scored({score: np.array(values, dtype=np.float64) for score in SCORES}, np.arange(20) >= wrong)


CLEAN = scored([1.0] * 10 + [5.0] * 10)
GROWING = {
    ("noise", severity): scored([1.0 + severity] * 10 + [5.0 + severity] * 10, severity) for severity in range(1, 6)
}


def test_a_shift_hidden_by_differences_between_classes_is_seen_within_a_class() -> None:
    found = summarise(
        "made", CLEAN, {("noise", s): scored([2.0] * 10 + [6.0] * 10) for s in range(1, 6)}, LABELS, [ONE]
    )
    cell = found.cells[0]
    # Of 20 x 20 pairs: 2 > 1 and 6 > 1, 6 > 5 exceed, 2 > 5 does not.
    assert cell.auroc["magnitude"] == pytest.approx(0.75)
    assert cell.auroc_within_class["magnitude"] == 1.0


def test_losses_are_points_against_the_same_windows_clean() -> None:
    found = summarise("made", CLEAN, GROWING, LABELS, [ONE, TWO])
    assert [cell.loss_points for cell in found.cells] == pytest.approx([5.0, 10.0, 15.0, 20.0, 25.0])


def test_correlations_are_over_severities_windows_and_stretches() -> None:
    found = summarise("made", CLEAN, GROWING, LABELS, [ONE])
    # Only the first stretch: medians 2..6 against losses of 10..50 points, in perfect order.
    assert found.loss_correlation["variance_part"] == pytest.approx(1.0)
    # In class 1 nothing is ever lost, so that only class 0 has an order.
    assert found.loss_correlation_within_class["mean_part"] == pytest.approx(1.0)
    severity = np.repeat(np.arange(6), 20)
    score = np.concatenate([CLEAN.scores["magnitude"] + s for s in range(6)])
    a, b = ([(x < value).sum() + (x == value).sum() / 2 for value in x] for x in (severity, score))
    assert found.severity_correlation["noise"]["magnitude"] == pytest.approx(float(np.corrcoef(a, b)[0, 1]))


def test_the_tables_name_every_corruption_and_its_half() -> None:
    text = markdown([summarise("made", CLEAN, GROWING, LABELS, [ONE])])
    # Severity 1 has the AUROC of 0.75 counted above, and the higher ones more: all are seen, none looks closer.
    assert "| made | 20 | 100.0 % | 1.00 1.00 1.00 | 1.00 1.00 1.00 | 5 of 5 | 5 5 5 | 0 |" in text
    assert "| noise | tuning | 5 10 15 20 25 |" in text
