"""What is asked of a generator before it may answer always: devices that neither it nor its network has seen."""

import numpy as np
import pytest

from acclimate.adaptation.data.dataset import Split
from acclimate.adaptation.generators.episodes import Recordings
from benchmarks import generator_rungs as module
from benchmarks.generator_rungs import left_out, verdict
from tests.adaptation.methods.numpy_net import source_for
from tests.adaptation.tiny_generators import drawn_generators
from tests.adaptation.tiny_nets import CONV, windows_for


def test_each_device_is_judged_by_what_was_taught_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    windows, labels = windows_for(CONV, 400), np.arange(400) % CONV.classes
    groups = np.repeat(["a", "b", "c", "d"], 100)
    source = Split(windows, labels, groups, np.arange(400))
    seen: list[tuple[str, ...]] = []

    def meta_train(model: object, recordings: Recordings, settings: object, seed: int) -> object:
        seen.append(tuple(np.unique(recordings.groups)))
        name = next(name for name, each in module.VARIANTS.items() if each == settings)
        return type("Trained", (), {"generator": drawn_generators(CONV, 0.0)[name]})

    monkeypatch.setattr(module, "meta_train", meta_train)
    monkeypatch.setattr(module, "trained_on", lambda *_: source_for(CONV))
    rows = list(left_out(source, CONV, 0, None))
    names = ("mgg", "generalizeformer", "statistics", "prototypes", "statistics+prototypes")
    assert [row[:2] for row in rows] == [(device, name) for device in "abcd" for name in names]
    assert seen[::2] == seen[1::2] == [("b", "c", "d"), ("a", "c", "d"), ("a", "b", "d"), ("a", "b", "c")]


def test_shifted_devices_count_once_for_each_kind_of_shift(monkeypatch: pytest.MonkeyPatch) -> None:
    windows, labels = windows_for(CONV, 200), np.arange(200) % CONV.classes
    source = Split(windows, labels, np.repeat(["a", "b"], 100), np.arange(200))
    taught = drawn_generators(CONV, 0.0)
    found = iter([taught["mgg"], taught["generalizeformer"]] * 2)
    monkeypatch.setattr(module, "meta_train", lambda *_: type("Trained", (), {"generator": next(found)}))
    monkeypatch.setattr(module, "trained_on", lambda *_: source_for(CONV))
    kinds = {row[0] for row in left_out(source, CONV, 0, None, 4.0)}
    assert {"a, gain", "b, gain", "a, gain+offset+noise"} <= kinds
    assert "a" not in kinds


def test_a_gain_that_is_clear_and_hurts_nobody_is_proven() -> None:
    # mean 0.1, deviation 0.0258, t of 3 degrees of freedom 4.541: 0.1 - 4.541 * 0.0258 / 2 = 0.0414
    found = verdict(np.array([0.07, 0.09, 0.11, 0.13]))
    assert found["lower"] == pytest.approx(0.0414, abs=1e-4)
    assert found["proven"]


@pytest.mark.parametrize(
    "gains", [[0.1, 0.1, 0.1], [0.3, 0.3, 0.3, -0.021], [0.5, 0.0, 0.0, 0.0]], ids=["few", "harm", "unclear"]
)
def test_three_devices_or_harm_to_one_or_an_unclear_gain_prove_nothing(gains: list[float]) -> None:
    assert not verdict(np.array(gains))["proven"]
