"""Rollbacks that freeze a device: many in few updates, however small the batches."""

from acclimate.adaptation.guards.record import GuardSettings
from acclimate.adaptation.guards.rollback_count import RollbackCount

SETTINGS = GuardSettings(n_min=8, rollbacks=3, per_updates=20, cool_down_windows=100)


def after(gaps: list[int], windows: int = 8) -> RollbackCount:
    """Return the count after rollbacks that stand so many batches apart."""
    count = RollbackCount.start(SETTINGS)
    for gap in gaps:
        for _ in range(gap):
            count = count.tried(windows, SETTINGS)
        count = count.rolled_back(SETTINGS)
    return count


def test_the_third_rollback_within_20_updates_freezes_and_two_do_not() -> None:
    assert after([1, 1]).frozen_windows == 0
    assert after([1, 1, 1]).frozen_windows == 100
    assert after([1, 9, 10]).frozen_windows == 100  # 19 apart


def test_rollbacks_20_updates_apart_never_freeze() -> None:
    assert after([1, 10, 10]).frozen_windows == 0
    assert after([10] * 50).frozen_windows == 0


def test_small_batches_count_by_their_share_of_n_min() -> None:
    assert after([1, 70, 70], windows=1).frozen_windows == 100  # 17.5 updates
    assert after([1, 80, 80], windows=1).frozen_windows == 0
    assert after([1, 9, 10], windows=64).frozen_windows == 100


def test_freezing_starts_the_count_of_updates_and_rollbacks_again() -> None:
    frozen = after([1, 1, 1])
    assert frozen.updates == 0
    assert frozen.thawed_by(60).frozen_windows == 40
    thawed = frozen.thawed_by(200)
    assert thawed.frozen_windows == 0
    assert thawed.rolled_back(SETTINGS).rolled_back(SETTINGS).frozen_windows == 0


def test_tensors_keep_the_whole_count() -> None:
    for count in (RollbackCount.start(SETTINGS), after([1, 3]), after([1, 1, 1])):
        assert RollbackCount.of(count.tensors()) == count
