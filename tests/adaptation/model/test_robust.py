"""The choice of a recipe: a fair table, a rule that says none when unsure, and the two kinds of evidence kept apart."""

import numpy as np
import pytest
from numpy.typing import NDArray

from acclimate.adaptation.data.augment import AUGMENTATIONS, Augmentation
from acclimate.adaptation.data.corruptions import EVALUATION
from acclimate.adaptation.errors import ConfigError, DataError
from acclimate.adaptation.model import robust, train
from acclimate.adaptation.model.robust import Choice, Score, candidates, choose_augmentation, decide, folds
from acclimate.adaptation.model.spec import NetworkSpec
from tests.adaptation.model.test_train import TINY, waves

HALF, FULL = candidates(2)


def table(**gains: list[float]) -> list[Score]:
    """Give scores on conditions 0, 1, ... around 60 % without augmentation; ``half`` and ``full`` are gains."""
    count = len(next(iter(gains.values())))
    rows = [Score("none", str(number), 0.6, 100) for number in range(count)]
    for name, values in gains.items():
        recipe = {"half": HALF, "full": FULL}[name]
        rows += [Score(str(recipe), str(number), 0.6 + gain, 100) for number, gain in enumerate(values)]
    return rows


@pytest.mark.parametrize(
    ("gains", "chosen"),
    [
        ({"half": [0.05, 0.06, 0.04], "full": [0.15, 0.1, 0.2]}, FULL),
        ({"half": [0.05, 0.06, 0.04], "full": [0.02, 0.03, 0.01]}, HALF),
        ({"half": [0.16, -0.055, 0.05, 0.14, 0.28], "full": [0.0] * 5}, HALF),  # one person loses, the others gain much
        ({"half": [0.009] * 6}, None),  # too little to notice
        ({"half": [0.02, 0.02, -0.03, 0.03]}, None),  # one loses more than is gained on average
        ({"half": [0.2, -0.01, -0.01, -0.01]}, None),  # one condition alone
        ({"half": [-0.1, -0.2]}, None),
        ({"half": [0.013]}, None),  # one condition left out, and less than conditions differ by
        ({"half": [0.2]}, HALF),
    ],
)
def test_a_recipe_must_earn_its_place(gains: dict[str, list[float]], chosen: Augmentation | None) -> None:
    recipes = [HALF, FULL][: len(gains)]
    assert decide(table(**gains), recipes) == chosen


def test_rotation_is_tried_only_where_channels_come_in_threes() -> None:
    assert ["rotation" in recipe.kinds for recipe in candidates(3)] == [False, False, True]
    assert not any("rotation" in recipe.kinds for channels in (1, 2, 8, 11) for recipe in candidates(channels))


def test_many_conditions_are_dealt_into_six_folds_that_cover_each_once() -> None:
    conditions = np.repeat([f"p{number:02}" for number in range(13)], 40)
    labels = np.tile([0, 1], 260)
    made = folds(labels, conditions)
    assert len(made) == 6
    assert made[0][0] == "p00+p06+p12"
    np.testing.assert_array_equal(np.sum([test for _, test in made], axis=0), 1)


def test_a_fold_whose_rest_hardly_shows_a_class_is_left_out() -> None:
    labels = np.repeat(
        [0, 1, 0, 1], [100, 70, 164, 5]
    )  # b shows class 1 five times: without a there is nothing to learn
    conditions = np.repeat(["a", "b"], [170, 169])
    assert [name for name, _ in folds(labels, conditions)] == ["b"]
    assert folds(np.tile([0, 1], 50), np.repeat(["only"], 100)) == ()


def choose(spec: NetworkSpec = TINY, **change: object) -> Choice:
    windows, labels, groups = waves(devices=3, each=120)
    arguments = {"windows": windows, "labels": labels, "conditions": groups} | change
    return choose_augmentation(**arguments, spec=spec, seed=0, epochs=1)  # type: ignore[arg-type]


def test_every_candidate_is_tested_on_every_condition_left_out_and_the_choice_is_repeatable() -> None:
    calls: list[tuple[int, int, str]] = []
    windows, labels, groups = waves(devices=4, each=80)
    args = (windows, labels, groups, TINY, 0)
    choice = choose_augmentation(*args, lambda *call: calls.append(call), epochs=1)
    assert choice.judged_by == "groups"
    assert not choice.weak
    assert [(row.candidate, row.condition) for row in choice.table] == [
        (name, f"d{number}") for number in range(4) for name in ("none", str(HALF), str(FULL))
    ]
    assert choice.fits == 12
    assert [call[0] for call in calls] == list(range(13))
    assert {call[1] for call in calls} == {12}
    assert choice == choose_augmentation(*args, epochs=1)
    assert choice.name in ("none", str(HALF), str(FULL))


def test_what_is_left_out_is_never_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    windows, labels, groups = waves(devices=3, each=120)
    marked = windows.copy()
    marked[:, 0, 0] = np.repeat([0.0, 1.0, 2.0], 120)  # says from which device a window is
    seen: list[set[float]] = []
    tested: list[set[float]] = []
    fit, predict = train.fit, train.predict

    def watched_fit(rows: NDArray[np.float32], *rest: object) -> object:
        seen.append(set(np.unique(rows[:, 0, 0])))
        return fit(rows, *rest)  # type: ignore[arg-type]

    def watched_predict(model: object, rows: NDArray[np.float32]) -> object:
        tested.append(set(np.unique(rows[:, 0, 0])))
        return predict(model, rows)  # type: ignore[arg-type]

    monkeypatch.setattr(robust, "fit", watched_fit)
    monkeypatch.setattr(robust, "predict", watched_predict)
    choose_augmentation(marked, labels, groups, TINY, 0, epochs=1)
    assert len(seen) == len(tested) == 18  # three folds twice, by three candidates
    assert all(trained | left_out == {0.0, 1.0, 2.0} for trained, left_out in zip(seen, tested, strict=True))
    assert all(not trained & left_out for trained, left_out in zip(seen, tested, strict=True))


def test_a_source_of_one_condition_is_judged_by_shifts_that_it_was_not_trained_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    windows, labels, _ = waves(devices=1, each=200)
    trained: list[tuple[str, ...]] = []
    fit = train.fit

    def watched(*args: object) -> object:
        recipe = args[5]
        trained.append(recipe.kinds if isinstance(recipe, Augmentation) else ())
        return fit(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(robust, "fit", watched)
    choice = choose_augmentation(windows, labels, np.full(200, "one"), TINY, 0, epochs=1)
    assert choice.judged_by == "simulated"
    assert choice.weak
    conditions = {row.condition for row in choice.table}
    assert conditions == {"unshifted", "band_limit", "quantisation", "missing_samples"}
    assert not conditions & (set(EVALUATION) | set(AUGMENTATIONS))
    assert trained == [(), (), FULL.kinds, FULL.kinds]  # two seeds each
    assert choice.fits == 4


def test_simulated_shifts_need_no_spread_but_a_loss_as_large_as_the_gain_refuses_still() -> None:
    scattered = table(half=[0.0, -0.005, -0.005, 0.14])
    assert decide(scattered, [HALF], spread=None) == HALF
    assert decide(scattered, [HALF]) is None
    assert decide(table(half=[-0.1, 0.0, 0.0, 0.3]), [HALF], spread=None) is None


def test_one_condition_that_can_be_left_out_is_weak_evidence() -> None:
    windows, labels, _ = waves(devices=2, each=120)
    groups = np.repeat(["a", "b"], 120)
    keep = np.flatnonzero((groups == "a") | (labels != 2) | (np.cumsum(labels == 2) % 3 == 0))
    choice = choose(windows=windows[keep], labels=labels[keep], conditions=groups[keep])
    assert {row.condition for row in choice.table} == {"b"}
    assert choice.judged_by == "groups"
    assert choice.weak
    assert choice.fits == 12  # four repetitions, since one comparison says little


def test_arrays_that_do_not_fit_are_refused_before_any_training() -> None:
    with pytest.raises(ConfigError, match="as many labels"):
        choose(conditions=np.array(["a"]))
    with pytest.raises(DataError, match="too small"):
        choose(windows=np.zeros((3, 2, 16), dtype=np.float32), labels=np.arange(3), conditions=np.full(3, "a"))
    with pytest.raises(DataError, match="each present"):
        choose(labels=np.zeros(360, dtype=np.int64))
