"""What is uploaded: a fair share, and shifted windows within a budget that holds to the byte."""

import hashlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.adaptation.errors import ConfigError
from acclimate.streams.device.outbox import record_bytes
from acclimate.streams.device.upload_budget import UploadBudget
from acclimate.streams.device.uploads import WHY, UploadRule, choose
from acclimate.streams.wire.codec import FeatureBatch, decode_features

SESSION = "00ff00ff00ff00ff"
DAY_MS = 24 * 3600 * 1000


def batch(count: int, seq: int = 0) -> FeatureBatch:
    windows = np.random.default_rng(seq).normal(size=(count, 3, 8)).astype(np.float32)
    return FeatureBatch("pump-7", SESSION, seq, tuple(range(count)), windows)


@given(
    st.integers(0, 10**9),
    st.lists(st.tuples(st.integers(-DAY_MS // 4, DAY_MS // 2), st.integers(0, 10**9)), max_size=40),
)
def test_no_24_hours_see_more_than_the_budget(per_day: int, asked: list[tuple[int, int]]):
    """However the asker hurries, and wherever the clock is set back."""
    budget, now, real, taken = UploadBudget.full(per_day, 0), 0, 0, []
    for step, size in asked:
        now += step
        real += max(0, step)  # true time passes at least as fast as the clock goes forward
        budget = budget.refilled(now)
        size = min(size, budget.left_bytes)
        budget = budget.without(size)
        taken.append((real, size))
    for start, _ in taken:
        assert sum(size for at, size in taken if start <= at <= start + DAY_MS) <= per_day


def test_a_budget_refills_by_the_half_that_does_not_go_at_once():
    budget = UploadBudget.full(1001, 0)
    assert budget.left_bytes == 500
    spent = budget.without(500)
    assert [spent.refilled(DAY_MS * hour // 24).left_bytes for hour in (0, 12, 24, 48)] == [0, 250, 500, 500]
    with pytest.raises(ValueError, match="501 bytes asked"):
        budget.without(501)


def test_the_share_is_a_function_of_the_event_and_fair():
    def chosen_by_hand(seq: int) -> bool:
        head = hashlib.sha256(f"upload/pump-7/{SESSION}/{seq}".encode()).digest()[:8]
        return (int.from_bytes(head, "big") >> 11) / 2**53 < 0.1

    rule, none = UploadRule(share=0.1, bytes_per_day=0), UploadBudget.full(0, 0)
    cut_anyhow = [(0, 700), (700, 1), (701, 1299)]
    found = np.concatenate(
        [
            choose(rule, "works", batch(count, seq), np.full(count, 9.0, np.float32), none, 10**6).uploaded
            for seq, count in cut_anyhow
        ]
    )
    assert found.tolist() == [chosen_by_hand(seq) for seq in range(2000)]
    assert 150 < found.sum() < 250


def test_records_hold_runs_of_one_reason_and_say_which():
    x = batch(60)
    magnitudes = np.where(np.arange(60) % 7 < 4, 1.5, 0.2).astype(np.float32)
    budget = UploadBudget.full(10**6, 0)
    chosen = choose(UploadRule(share=0.2), "works", x, magnitudes, budget, 10**6)
    seen = np.zeros(60, bool)
    for record in chosen.records:
        part = decode_features(record.key, record.value, channels=3, length=8, bytes_max=10**6)
        np.testing.assert_array_equal(part.windows, x.windows[part.seq : part.seq + len(part.windows)])
        if dict(record.headers)[WHY] == b"shifted":
            assert (magnitudes[part.seq : part.seq + len(part.windows)] >= 1).all()
        seen[part.seq : part.seq + len(part.windows)] = True
        assert record.topic == "works.windows"
    assert seen.tolist() == chosen.uploaded.tolist()
    assert (chosen.uploaded >= (magnitudes >= 1)).all()
    shifted = [record for record in chosen.records if dict(record.headers)[WHY] == b"shifted"]
    assert chosen.budget_bytes == sum(map(record_bytes, shifted)) > 0
    assert budget.left_bytes - chosen.budget.left_bytes == chosen.budget_bytes


def test_what_is_beyond_the_budget_stays_and_is_counted():
    budget, rule = UploadBudget.full(40_000, 0), UploadRule(share=0.0, bytes_per_day=40_000)
    taken = uploaded = over = 0
    for seq in range(0, 1600, 16):
        chosen = choose(rule, "works", batch(16, seq), np.ones(16, np.float32), budget, 10**6)
        taken += sum(map(record_bytes, chosen.records))
        uploaded, over, budget = uploaded + int(chosen.uploaded.sum()), over + chosen.over_budget, chosen.budget
    assert uploaded + over == 1600
    assert 15_000 < taken <= 20_000
    assert budget.left_bytes == 20_000 - taken


def test_large_windows_go_in_several_records():
    chosen = choose(UploadRule(share=1.0), "works", batch(50), np.zeros(50, np.float32), UploadBudget.full(0, 0), 3_000)
    assert len(chosen.records) > 3
    assert all(record_bytes(record) <= 3_000 for record in chosen.records)
    firsts = [decode_features(r.key, r.value, channels=3, length=8, bytes_max=10**6).seq for r in chosen.records]
    assert firsts[0] == 0
    assert all(one < other for one, other in pairwise(firsts))


@pytest.mark.parametrize("values", [{"share": -0.1}, {"share": 1.1}, {"bytes_per_day": -1}])
def test_a_rule_out_of_range_is_refused(values: dict[str, float]):
    with pytest.raises(ConfigError, match="expected"):
        UploadRule(**values)  # type: ignore[arg-type]
