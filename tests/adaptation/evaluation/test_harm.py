"""Harm: the interval against an independent bootstrap, its coverage on dependent data, and its edges."""

import numpy as np
import pytest
from numpy.random import Generator
from numpy.typing import NDArray

from acclimate.adaptation.errors import ConfigError, ContractError
from acclimate.adaptation.evaluation.harm import Change, block_length, label_run, paired_change, share_interval


def sticky(rng: Generator, share: float, n: int, stay: float) -> NDArray[np.bool_]:
    """Return a two-state Markov chain with this share of True that keeps its state with probability ``stay``."""
    fresh = rng.random(n) < share
    keep = rng.random(n) < stay
    keep[0] = False
    last = np.maximum.accumulate(np.where(keep, 0, np.arange(n)))
    return fresh[last]


def test_the_interval_equals_a_bootstrap_written_as_a_loop() -> None:
    rng = np.random.default_rng(0)
    right, source = rng.random(37) < 0.6, rng.random(37) < 0.7
    change = paired_change(right, source, block=5, seed=3, replicates=200)
    difference = right.astype(float) - source.astype(float)
    starts = np.random.default_rng([3, 11]).integers(0, 37, (200, 8))
    means = [np.mean([difference[(start + i) % 37] for start in row for i in range(5)]) for row in starts]
    assert change.mean == pytest.approx(difference.mean())
    assert change.low == pytest.approx(np.quantile(means, 0.025))
    assert change.high == pytest.approx(np.quantile(means, 0.975))


def test_equal_answers_are_no_harm_and_no_uncertainty() -> None:
    right = np.random.default_rng(0).random(100) < 0.5
    assert paired_change(right, right, 10) == Change(0.0, 0.0, 0.0, 10)
    assert paired_change(right, right, 10).harmed is False


def test_a_clear_loss_is_harm_and_a_clear_gain_is_none() -> None:
    good, bad = np.ones(200, dtype=np.bool_), np.arange(200) % 2 == 0
    assert paired_change(bad, good, 14) == Change(-0.5, -0.5, -0.5, 15)
    assert paired_change(bad, good, 14).harmed
    assert not paired_change(good, bad, 14).harmed


def test_one_bad_stretch_is_not_called_harm() -> None:
    good = np.ones(400, dtype=np.bool_)
    bad = good.copy()
    bad[100:120] = False  # 5 %, but all of it in one place
    assert not paired_change(bad, good, 20).harmed
    spread = good.copy()
    spread[::20] = False
    assert paired_change(spread, good, 20).harmed


def test_false_alarms_of_harm_stay_rare_when_errors_come_in_runs() -> None:
    rng = np.random.default_rng(1)
    blocked = single = 0
    for _ in range(100):
        right, source = sticky(rng, 0.8, 900, 0.9), sticky(rng, 0.8, 900, 0.9)  # no true difference
        blocked += bool(paired_change(right, source, 30, replicates=200).harmed)
        single += bool(paired_change(right, source, 1, replicates=200).harmed)
    assert blocked <= 9  # 2.5 % expected of a perfect interval
    assert single > 15  # what drawing single windows would have called harm


def test_blocks_follow_the_labels_and_leave_enough_to_draw_from() -> None:
    assert block_length(np.arange(400) % 2) == 20  # sqrt(n)
    assert block_length(np.repeat(np.arange(10), 40)) == 40  # the activity
    assert block_length(np.repeat([0, 1], 200)) == 50  # at most an eighth
    assert block_length(np.zeros(1, dtype=np.int64)) == 1


def test_a_run_counts_by_its_windows_and_not_as_one_among_many_short_ones() -> None:
    # Nine windows in ten lie in runs of 90; the plain median of the runs is 1.
    labels = np.concatenate([np.repeat([0, 1], [90, 10]) if part % 2 else np.arange(10) % 2 for part in range(40)])
    assert label_run(labels) == 90
    assert block_length(labels) == 90
    assert label_run(np.array([3])) == 1


def test_few_blocks_leave_harm_undecided() -> None:
    right, source = np.array([True, False]), np.array([False, False])
    assert paired_change(right, source, 2) == Change(0.5, 0.5, 0.5, 1)
    assert paired_change(right[:1], source[:1], 1) == Change(1.0, 1.0, 1.0, 1)
    worse, better = np.zeros(70, dtype=np.bool_), np.ones(70, dtype=np.bool_)
    assert paired_change(worse, better, 10).harmed is None  # 7 blocks
    assert paired_change(worse, better, 9).harmed is True
    assert paired_change(worse[:7], better[:7], block_length(np.zeros(7, dtype=np.int64))).harmed is None


def test_blocks_and_answers_that_cannot_be_paired_are_refused() -> None:
    right = np.ones(10, dtype=np.bool_)
    for block in (0, 11):
        with pytest.raises(ConfigError, match=f"expected 1 to 10, got {block}"):
            paired_change(right, right, block)
    for other in (right[:1], right[:9], right[:0]):
        with pytest.raises(ContractError, match="the same windows"):
            paired_change(other, right, 1)
    with pytest.raises(ContractError, match="the same windows"):
        paired_change(right[:0], right[:0], 1)


@pytest.mark.parametrize(("run", "most"), [(30, 9), (110, 18), (300, 30)])
def test_false_harm_stays_bounded_when_whole_activities_go_wrong(run: int, most: int) -> None:
    # Each activity is as easy for method and source as it happens to be; neither is better. 2.5 of 100 are expected of
    # a perfect interval. With runs of 300 in 900 windows (three activities) a block is shorter than a run, and harm is
    # called too often, as documented.
    rng = np.random.default_rng(4)
    labels = np.arange(900) // run % 2
    block = block_length(labels)
    assert block == min(run, 112)
    harmed = single = 0
    for _ in range(100):
        right, source = (rng.random(900) < rng.beta(4, 1, 900 // run + 1)[np.arange(900) // run] for _ in range(2))
        harmed += bool(paired_change(right, source, block, replicates=200).harmed)
        single += bool(paired_change(right, source, 1, replicates=200).harmed)
    assert harmed <= most
    assert harmed < single


def test_a_shuffled_stream_must_be_judged_in_the_order_of_its_recording() -> None:
    rng = np.random.default_rng(1)
    recorded = arrived = 0
    for _ in range(100):
        right, source = sticky(rng, 0.8, 900, 0.9), sticky(rng, 0.8, 900, 0.9)  # no true difference
        order = rng.permutation(900)
        recorded += bool(paired_change(right, source, 30, replicates=200).harmed)
        arrived += bool(paired_change(right[order], source[order], 30, replicates=200).harmed)
    assert recorded <= 9
    assert arrived > 15  # a permutation hides the dependence and does not undo it


def test_the_interval_of_a_share_equals_wilsons_formula() -> None:
    low, high = share_interval(0.3, 10)
    p, n, z = 0.3, 10, 1.959963984540054
    for end in (low, high):  # Wilson's ends solve (p - e)^2 = z^2 e (1 - e) / n
        assert (p - end) ** 2 == pytest.approx(z**2 * end * (1 - end) / n)
    assert low < 0.3 < high
    assert share_interval(1.0, 5)[1] == 1.0
    assert share_interval(0.0, 5)[0] == 0.0
