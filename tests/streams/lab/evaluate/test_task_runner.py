"""What is kept of a group's answers: in the order of stream and recording, and what identifies its windows."""

import numpy as np
import pytest

from acclimate.adaptation.data.dataset import Split
from acclimate.adaptation.evaluation.harm import block_length, label_run
from acclimate.adaptation.evaluation.streams import make_stream
from acclimate.streams.lab.evaluate.task_runner import score_group, unpack_bits

CENTRE, SCALE = np.zeros(1), np.ones(1)


def recorded(labels_seed: int = 0) -> Split:
    """Return two groups of 60 windows, runs of 12, each window with a number of its own."""
    n = 120
    labels = np.repeat(np.random.default_rng(labels_seed).permutation(np.arange(10) % 3), 12).astype(np.int64)
    windows = np.arange(n, dtype=np.float32)[:, None, None] * np.ones((1, 1, 16), dtype=np.float32)
    return Split(windows, labels, np.repeat(["a", "b"], 60), np.arange(n))


@pytest.mark.parametrize("kind", ["ordered", "shuffled", "skewed", "mixed", "sparse"])
def test_answers_are_brought_back_into_the_order_of_the_recording(kind: str) -> None:
    split = recorded()
    stream = make_stream(split, ("a", "b") if kind == "mixed" else ("b",), kind, 3, CENTRE, SCALE)
    row = stream.windows[:, 0, 0].astype(np.int64)
    right = row % 7 < 3  # by the window, wherever it stands
    answers = np.where(right, stream.labels, (stream.labels + 1) % 3)
    entry = score_group(stream, len(stream.groups) - 1, np.eye(3, dtype=np.float32)[answers])
    assert entry["group"] == "b"
    arrived = row[row >= 60]
    assert np.array_equal(unpack_bits(entry), arrived % 7 < 3)
    assert np.array_equal(unpack_bits(entry, "recorded"), np.sort(arrived) % 7 < 3)
    in_time = split.labels[np.sort(arrived)]
    assert (entry["block"], entry["label_run"]) == (block_length(in_time), label_run(in_time))
    if kind == "shuffled":
        assert not np.array_equal(unpack_bits(entry), unpack_bits(entry, "recorded"))
        assert entry["label_run"] > label_run(stream.labels)


def test_other_windows_labels_and_orders_have_other_digests() -> None:
    answers = np.full((60, 3), 1 / 3, dtype=np.float32)

    def digest(split: Split, kind: str, seed: int) -> str:
        return str(score_group(make_stream(split, ("a",), kind, seed, CENTRE, SCALE), 0, answers)["data"])

    one = digest(recorded(), "shuffled", 0)
    assert one == digest(recorded(), "shuffled", 0)
    changed = recorded()
    changed.windows[5] += 1
    others = [digest(recorded(), "shuffled", 1), digest(recorded(1), "shuffled", 0), digest(changed, "shuffled", 0)]
    assert len({one, *others}) == 4
    assert len(one) == 12
