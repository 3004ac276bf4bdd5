"""A run: fresh state, batches in order, the clock that was given, and no way in for labels."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from acclimate.adaptation.data.dataset import Split
from acclimate.adaptation.errors import ConfigError, ContractError
from acclimate.adaptation.evaluation.run import balanced_rows, run_stream
from acclimate.adaptation.evaluation.streams import make_stream
from acclimate.adaptation.method import Method, SourceContext, State, Step
from acclimate.adaptation.methods.catalogue import METHODS, make_method
from acclimate.adaptation.methods.policy_settings import PolicySettings
from acclimate.adaptation.methods.prepared import Prepared
from tests.adaptation.tiny_alignments import drawn_alignments
from tests.adaptation.tiny_generators import drawn_generators
from tests.adaptation.tiny_nets import tones, trained_on_tones

ALWAYS = PolicySettings("statistics+prototypes", False, 1.0, 1.0, 256.0, weak=False)


class Counting:
    """Answers with what it has seen so far: the size of each batch and the number of windows before it."""

    stateless = False
    adapts: tuple[str, ...] = ()

    def reset(self) -> State:
        return {"seen": torch.zeros((), dtype=torch.int64)}

    def adapt_batch(self, state: State, windows: Tensor) -> tuple[State, Step]:
        n = len(windows)
        answers = torch.stack([torch.full((n,), float(n)), torch.full((n,), float(state["seen"]))], dim=1)
        return {"seen": state["seen"] + n, "more": torch.zeros(n)}, Step(answers, updates=1, resets=2, selected=n)


class Ticking:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_batches_come_in_order_from_a_fresh_state_and_are_added_up() -> None:
    windows = np.zeros((7, 1, 4), dtype=np.float32)
    for _ in range(2):
        answers = run_stream(Counting(), windows, 3, Ticking())
        assert answers.probabilities.tolist() == [[3, 0]] * 3 + [[3, 3]] * 3 + [[1, 6]]
    assert (answers.updates, answers.resets, answers.selected) == (3, 6, 7)
    assert answers.seconds == 4.0  # the reset and three batches, one tick each
    assert answers.state_bytes == 8 + 3 * 4  # the largest that it ever was


class Gated(Counting):
    """Answers its first batch by the source, and half of every later one by another rung."""

    def __init__(self, told: int) -> None:
        self.told = told

    def adapt_batch(self, state: State, windows: Tensor) -> tuple[State, Step]:
        new, step = super().adapt_batch(state, windows)
        adapted = self.told // 2 if int(state["seen"]) else 0
        counts = {"source": self.told - adapted, "statistics": adapted}
        return new, replace(step, receipts=tuple({"windows": n, "rung": rung} for rung, n in counts.items()))


def test_receipts_tell_how_many_windows_were_adapted() -> None:
    windows = np.zeros((12, 1, 4), dtype=np.float32)
    assert run_stream(Gated(4), windows, 4, Ticking()).adapted == 4
    assert run_stream(Counting(), windows, 4, Ticking()).adapted is None
    with pytest.raises(ContractError, match="account for 3 windows, expected 4"):
        run_stream(Gated(3), windows, 4, Ticking())


def test_nothing_to_answer_and_batches_of_none_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least one window"):
        run_stream(Counting(), np.zeros((0, 1, 4), dtype=np.float32), 1, Ticking())
    with pytest.raises(ConfigError, match="at least 1"):
        run_stream(Counting(), np.zeros((2, 1, 4), dtype=np.float32), 0, Ticking())


def test_no_argument_of_a_run_or_of_a_method_is_a_label() -> None:
    for function in (run_stream, Method.adapt_batch, Method.reset, Counting.adapt_batch):
        assert not [name for name in inspect.signature(function).parameters if "label" in name or name == "y"]


@pytest.mark.parametrize("name", list(METHODS))
def test_target_labels_never_reach_a_method(name: str) -> None:
    source, source_labels = tones(60, seed=2)
    windows, labels = tones(40, seed=8)
    model = trained_on_tones()[0]
    context = SourceContext(model, torch.from_numpy(source), torch.from_numpy(source_labels), 1)
    prepared = Prepared(ALWAYS, drawn_generators(model.spec), drawn_alignments(context))
    answers = []
    for given in (labels, np.random.default_rng(0).permutation(labels), np.zeros_like(labels)):
        split = Split(windows, given, np.full(len(given), "device"), np.arange(len(given)))
        stream = make_stream(split, ("device",), "shuffled", 0, np.zeros(2), np.ones(2))
        answers.append(run_stream(make_method(name, context, prepared), stream.windows, 8, Ticking()).probabilities)
    assert np.array_equal(answers[0], answers[1])
    assert np.array_equal(answers[0], answers[2])


def test_a_sample_of_the_source_holds_every_class_alike() -> None:
    labels = np.repeat([0, 1, 2], [500, 40, 3])
    rows = balanced_rows(labels, 60, seed=0)
    assert np.bincount(labels[rows]).tolist() == [20, 20, 3]
    assert (np.diff(rows) > 0).all()
    assert not np.array_equal(rows, balanced_rows(labels, 60, seed=1))
