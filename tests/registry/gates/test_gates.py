"""Each gate on answers that are written down here, so that every figure can be counted by hand."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from acclimate.adaptation.errors import ConfigError, ContractError
from acclimate.registry.bundles.source_bundle import Bundle
from acclimate.registry.gates.anchor import anchor
from acclimate.registry.gates.answers import Answers, Compared
from acclimate.registry.gates.contract import contract
from acclimate.registry.gates.evaluation import evaluation
from acclimate.registry.gates.rules import AnchorRules, EvaluationRules, ShadowRules, ShiftRules
from acclimate.registry.gates.shadow import shadow
from acclimate.registry.gates.shifts import shifts
from acclimate.registry.releases.verdict import Finding
from tests.support.models import tiny_bundle

CLASSES = ("normal", "leak")


def answers(labels: Sequence[int], confidence: float = 0.9) -> Answers:
    probabilities = np.full((len(labels), 2), 1 - confidence, np.float32)
    probabilities[np.arange(len(labels)), list(labels)] = confidence
    return Answers(probabilities, probabilities)


def compared(
    truth: Sequence[int], candidate: Sequence[int], champion: Sequence[int] | None, groups: str | None = None
) -> Compared:
    names = np.array(list(groups or "a" * len(truth)))
    before = None if champion is None else answers(champion)
    return Compared("yard", np.array(truth), names, answers(candidate), before)


def wrong(truth: Sequence[int], count: int, start: int = 0) -> list[int]:
    """Return the truth with so many mistakes in a row."""
    return [1 - label if start <= i < start + count else label for i, label in enumerate(truth)]


TRUTH = [0] * 50 + [1] * 50


def judged(found: Compared, **rules: object) -> Finding:
    return evaluation([found], CLASSES, EvaluationRules.model_validate({"group_windows_min": 10, **rules}))


@pytest.mark.parametrize(("mistakes", "outcome"), [(10, "passed"), (11, "passed"), (12, "failed")])
def test_accuracy_may_be_lower_by_the_margin_and_no_more(mistakes: int, outcome: str):
    # 0.90 in force, a margin of 0.01: 0.89 passes, 0.88 does not.
    found = judged(compared(TRUTH, wrong(TRUTH, mistakes), wrong(TRUTH, 10)))
    assert found.outcome == outcome
    assert found.figures["yard: accuracy"] == 1 - mistakes / 100
    assert found.figures["yard: champion's accuracy"] == 0.9
    if outcome == "failed":
        assert found.message == "yard: accuracy: found 0.8800, allowed 0.8900"


def test_a_better_mean_does_not_make_up_for_one_harmed_group():
    groups = "a" * 80 + "b" * 20
    found = judged(compared(TRUTH, wrong(TRUTH, 4, start=80), wrong(TRUTH, 20), groups))
    assert found.figures["yard: accuracy"] == 0.96 > 0.80 == found.figures["yard: champion's accuracy"]
    assert found.outcome == "failed"
    assert found.message == "yard: group b: found 0.8000, allowed 0.9500"
    # Twenty windows are too few to say that where thirty are asked for.
    assert judged(
        compared(TRUTH, wrong(TRUTH, 4, start=80), wrong(TRUTH, 20), groups), group_windows_min=30
    ).outcome == ("passed")


def test_the_recall_of_a_protected_class_may_not_fall_even_if_all_else_is_better():
    candidate, champion = wrong(TRUTH, 1, start=70), wrong(TRUTH, 10)
    assert judged(compared(TRUTH, candidate, champion)).outcome == "passed"
    found = judged(compared(TRUTH, candidate, champion), protected=("leak",))
    assert found.outcome == "failed"
    assert found.message == "yard: recall of leak: found 0.9800, allowed 1.0000"
    assert judged(compared(TRUTH, candidate, champion), protected=("leak",), recall_margin=0.02).outcome == "passed"


def test_a_protected_class_that_no_set_shows_fails_and_an_unknown_one_is_a_mistake():
    normal = [0] * 50
    found = judged(compared(normal, normal, normal), protected=("leak",))
    assert (found.outcome, "protected leak" in found.message) == ("failed", True)
    assert evaluation([], CLASSES, EvaluationRules(protected=("leak",))).outcome == "failed"
    with pytest.raises(ConfigError, match="normal, leak"):
        judged(compared(TRUTH, TRUTH, TRUTH), protected=("leek",))


def test_what_was_not_judged_is_never_said_to_have_passed():
    assert evaluation([], CLASSES, EvaluationRules()).outcome == "skipped"
    alone = judged(compared(TRUTH, TRUTH, None))
    assert (alone.outcome, alone.figures["yard: accuracy"]) == ("skipped", 1.0)
    assert shifts([], ShiftRules()).outcome == shifts([compared(TRUTH, TRUTH, None)], ShiftRules()).outcome == "skipped"
    weights = {"w": np.ones(2, np.float32)}
    assert anchor(weights, None, AnchorRules(distance_max=1.0)).outcome == "skipped"
    assert anchor(weights, weights, AnchorRules()).outcome == "skipped"
    one = answers([0]).answered
    assert shadow(np.array(["d"]), one, None, 0, ShadowRules()).outcome == "skipped"
    nothing = np.zeros((0, 2), np.float32)
    assert shadow(np.array([], dtype=np.str_), nothing, nothing, 3, ShadowRules()).message.endswith(
        "3 records were passed over"
    )


def test_answers_that_are_no_numbers_are_refused():
    broken = answers(TRUTH)
    broken.answered[3] = np.nan
    found = dataclasses.replace(compared(TRUTH, TRUTH, TRUTH), candidate=broken)
    for judge in (lambda: judged(found), lambda: shifts([found], ShiftRules())):
        with pytest.raises(ContractError, match="found 1 answers"):
            judge()
    assert shadow(np.array(["d"] * 100), broken.answered, answers(TRUTH).answered, 0, ShadowRules()).outcome == "failed"


def test_under_shifts_it_may_be_a_little_worse_in_the_mean_and_not_much_worse_under_one():
    same = compared(TRUTH, wrong(TRUTH, 10), wrong(TRUTH, 10))
    assert shifts([compared(TRUTH, wrong(TRUTH, 15), wrong(TRUTH, 10))], ShiftRules()).outcome == "passed"
    found = shifts([compared(TRUTH, wrong(TRUTH, 16), wrong(TRUTH, 10))], ShiftRules())
    assert (found.outcome, found.message) == ("failed", "mean over 1 shifts: found -0.0600, allowed -0.0500")
    assert shifts([same, same, compared(TRUTH, wrong(TRUTH, 25), wrong(TRUTH, 10))], ShiftRules()).outcome == "passed"
    found = shifts([same, same, same, compared(TRUTH, wrong(TRUTH, 26), wrong(TRUTH, 10))], ShiftRules())
    assert (found.outcome, found.message) == ("failed", "yard: found 0.7400, allowed 0.7500")


def test_the_distance_of_a_tensor_is_relative_to_the_champions():
    old = {"w": np.array([3.0, 4.0], np.float32), "zero": np.zeros(2, np.float32)}
    new = {"w": np.array([3.0, 6.0], np.float32), "zero": np.zeros(2, np.float32)}  # |(0, 2)| / |(3, 4)| = 2 / 5
    found = anchor(new, old, AnchorRules(distance_max=0.5))
    assert (found.outcome, found.figures) == ("passed", {"w": 0.4, "zero": 0.0})
    assert anchor(new, old, AnchorRules(distance_max=0.3)).message == "w: found 0.4000, allowed 0.3"
    assert anchor({"w": np.ones(3, np.float32)}, old, AnchorRules(distance_max=0.3)).outcome == "skipped"


@pytest.mark.parametrize(("changes", "outcome"), [(15, "passed"), (16, "failed")])
def test_so_many_answers_of_the_fleet_may_change(changes: int, outcome: str):
    devices = np.array(["d"] * 100)
    rules = ShadowRules(changed_share=0.15)
    found = shadow(devices, answers(wrong(TRUTH, changes)).answered, answers(TRUTH).answered, 0, rules)
    assert (found.outcome, found.figures["changed"]) == (outcome, changes / 100)


def test_one_device_may_not_bear_all_the_changes_nor_confidence_fall():
    devices = np.array(["a"] * 950 + ["b"] * 50)
    truth = [0] * 1000
    found = shadow(
        devices,
        answers(wrong(truth, 50, 950)).answered,
        answers(truth).answered,
        0,
        ShadowRules(device_changed_share=0.4),
    )
    assert (found.outcome, found.message) == ("failed", "b: found 1.0000 of the answers changed, allowed 0.4")
    less = shadow(devices, answers(truth, 0.8).answered, answers(truth, 0.9).answered, 0, ShadowRules())
    assert less.message == "fleet: found mean confidence 0.1000 lower, allowed 0.05"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("gates") / "bundle")


def test_a_source_must_take_the_windows_and_name_the_classes_in_force(bundle: Bundle, tmp_path: Path):
    assert contract(bundle, bundle, bundle, {"itself": bundle.digest}).outcome == "passed"
    assert contract(bundle, bundle, None, {"itself": bundle.digest}).outcome == "passed"
    renamed = bundle.manifest.model_copy(update={"class_names": ("imbalance", "normal", "looseness", "bearing")})
    found = contract(dataclasses.replace(bundle, manifest=renamed), bundle, bundle, {"itself": bundle.digest})
    assert (found.outcome, "classes" in found.message) == ("failed", True)
    rows = tiny_bundle(tmp_path / "rows", kind="mlp")
    assert "samples per window: expected 64 as in force, found 1" in contract(rows, rows, bundle, {}).message
