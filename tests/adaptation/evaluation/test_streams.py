"""Streams: every window once, the order that the name promises, and the same for everybody who asks again."""

import numpy as np
import pytest
from numpy.typing import NDArray

from acclimate.adaptation.data.corruptions import EVALUATION, EVALUATION_MIXTURES, TUNING, corrupt
from acclimate.adaptation.data.dataset import Split
from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.evaluation.streams import CORRUPTED, STREAMS, Stream, every, make_stream, stream_members

CENTRE, SCALE = np.zeros(3), np.ones(3)
REORDERED = ("ordered", "shuffled", "mixed", "skewed")


def fleet(sizes: tuple[int, ...] = (90, 60), channels: int = 3, length: int = 16) -> Split:
    """Return groups a, b, ... whose windows carry their row number in every sample of channel 0."""
    n = sum(sizes)
    rng = np.random.default_rng(0)
    windows = rng.standard_normal((n, channels, length)).astype(np.float32)
    windows[:, 0] = np.arange(n)[:, None]
    groups = np.repeat([chr(ord("a") + index) for index in range(len(sizes))], sizes)
    labels = (np.arange(n) // 15 % 3).astype(np.int64)
    return Split(windows, labels, groups, np.arange(n))


def rows(stream: Stream) -> NDArray[np.int64]:
    return stream.windows[:, 0, 0].astype(np.int64)


def stream(kind: str, split: Split | None = None, seed: int = 0, severity: float | None = None) -> Stream:
    split = fleet() if split is None else split
    return make_stream(split, stream_members(split, kind)[0], kind, seed, CENTRE, SCALE, severity)


@pytest.mark.parametrize("kind", STREAMS)
def test_asking_again_gives_the_same_stream_and_leaves_the_recording_alone(kind: str) -> None:
    split = fleet()
    before = split.windows.copy()
    one, two = stream(kind, split), stream(kind, split)
    assert np.array_equal(one.windows, two.windows)
    assert np.array_equal(one.labels, two.labels)
    assert np.array_equal(split.windows, before)
    assert one.windows.dtype == np.float32
    assert len(one.row) == len(one.member) == len(one.severity) == len(one.returned) == len(one)


@pytest.mark.parametrize("kind", REORDERED)
def test_a_reordered_stream_loses_no_window_and_keeps_labels_with_their_windows(kind: str) -> None:
    split = fleet()
    made = stream(kind, split)
    n = 150 if kind == "mixed" else 90
    assert sorted(rows(made)) == list(range(n))
    assert np.array_equal(made.labels, split.labels[rows(made)])
    assert np.array_equal(np.array(made.groups)[made.member], split.groups[rows(made)])
    assert np.array_equal(made.row, rows(made))  # what brings answers back into the order of time


def test_ordered_is_as_recorded_and_seeds_reorder_shuffled_only() -> None:
    assert np.array_equal(rows(stream("ordered", seed=1)), np.arange(90))
    assert not np.array_equal(rows(stream("shuffled", seed=1)), rows(stream("shuffled", seed=2)))
    assert not np.array_equal(rows(stream("shuffled")), np.arange(90))


def test_mixed_interleaves_the_groups_but_keeps_each_in_its_order() -> None:
    split = fleet()
    assert stream_members(split, "mixed") == [("a", "b")]
    assert stream_members(split, "ordered") == [("a",), ("b",)]
    mixed = stream("mixed", split)
    for member in (0, 1):
        assert (np.diff(rows(mixed)[mixed.member == member]) > 0).all()
    assert (np.diff(mixed.member) != 0).sum() > 30


def test_sparse_lets_every_tenth_window_through() -> None:
    assert rows(stream("sparse")).tolist() == list(range(0, 90, 10))


def test_skewed_brings_classes_in_runs_and_seldom_all_at_once() -> None:
    split = fleet((3000,))
    shuffled, skewed = stream("shuffled", split), stream("skewed", split)
    assert (np.diff(skewed.labels) != 0).sum() <= 30
    assert (np.diff(shuffled.labels) != 0).sum() > 1500


def test_severity_follows_the_plan_of_each_stream() -> None:
    split = fleet((300,))
    gradual = stream("gradual", split).severity
    assert gradual[0] == 0.0
    assert gradual[-1] == 5.0
    assert (np.diff(gradual) >= 0).all()
    abrupt = stream("abrupt", split).severity
    assert (abrupt[:150] == 0).all()
    assert (abrupt[150:] == 3).all()
    recurring = stream("recurring", split)
    assert recurring.severity.reshape(3, 100).mean(axis=1).tolist() == [0.0, 3.0, 0.0]
    assert recurring.returned.nonzero()[0].tolist() == list(range(200, 300))
    for seed in range(20):
        spike = stream("spike", split, seed=seed).severity
        bursts = (np.diff(np.concatenate([[0.0], spike])) > 0).sum()
        assert 0.01 <= (spike > 0).mean() <= 0.05
        assert 1 <= bursts <= 3
        assert set(spike) == {0.0, 5.0}
    assert stream("abrupt", split, severity=1.5).severity.max() == 1.5


@pytest.mark.parametrize("kind", CORRUPTED)
def test_a_corrupted_stream_equals_the_simulator_applied_to_the_whole_stream(kind: str) -> None:
    split = fleet((120,))
    for seed in range(4):
        made = stream(kind, split, seed)
        assert made.corruption in (*EVALUATION, *EVALUATION_MIXTURES)
        clean = made.severity == 0
        assert np.array_equal(made.windows[clean], split.windows[clean])
        assert not np.array_equal(made.windows[~clean], split.windows[~clean])
    # Abrupt is one call of the simulator: with the right seed, the whole stream corrupted at once shows the same.
    made = stream("abrupt", split)
    assert made.corruption is not None
    seeds = np.random.default_rng([0, 0xE8B7BE43, 7])  # crc32(b"a")
    seeds.integers(len(EVALUATION) + len(EVALUATION_MIXTURES))
    whole = corrupt(split.windows, made.corruption, 3.0, SCALE, int(seeds.integers(2**31)), centre=CENTRE)
    assert np.array_equal(made.windows[60:], whole[60:])


def test_what_training_may_use_never_disturbs_an_evaluation() -> None:
    split = fleet((30,) * 8)
    drawn = {
        make_stream(split, (group,), "abrupt", seed, CENTRE, SCALE).corruption
        for seed in range(6)
        for (group,) in stream_members(split, "abrupt")
    }
    parts = {part for kind in drawn if kind for part in kind.split("+")}
    assert len(drawn) > 4
    assert not parts & set(TUNING)


def test_rows_without_time_and_of_one_channel_have_their_streams_too() -> None:
    for channels, length in ((1, 16), (5, 1)):
        split = fleet((40,), channels, length)
        for kind in STREAMS:
            made = make_stream(split, ("a",), kind, 3, np.zeros(channels), np.ones(channels))
            assert np.isfinite(made.windows).all()


@pytest.mark.parametrize("kind", STREAMS)
def test_a_group_of_one_window_makes_a_stream(kind: str) -> None:
    assert len(stream(kind, fleet((1,)))) == 1


def test_a_stride_thins_each_group_from_its_first_window() -> None:
    thin = every(fleet(), 40)
    assert thin.rows.tolist() == [0, 40, 80, 90, 130]
    assert [name for name, _ in thin.streams()] == ["a", "b"]
    with pytest.raises(ConfigError, match="at least 1"):
        every(fleet(), 0)


def test_unknown_streams_and_severities_are_refused() -> None:
    with pytest.raises(ConfigError, match="'sorted' is unknown; choose from ordered"):
        stream_members(fleet(), "sorted")
    with pytest.raises(ConfigError, match="above 0 to 5, got 6"):
        stream("abrupt", severity=6)
    for groups, text in ((("a", "z"), "got z"), ((), "got none")):
        with pytest.raises(ConfigError, match=f"expected some of a, b, {text}"):
            make_stream(fleet(), groups, "ordered", 0, CENTRE, SCALE)
