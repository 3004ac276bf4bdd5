"""Find out on the source alone whether and how to augment its training.

The same augmentation gained 20 points on one set of recordings and cost 16 on another, so it is not a default but a
question to the source: leave one condition (person, machine, batch of time) out, train on the others with each
candidate, test on the one left out. Condition by condition the candidates share windows, initial weights and the order
of batches, so that their differences are the recipe's.

    d_i = accuracy with the candidate - accuracy without, condition i of n                                (1)
    gain = mean d_i;   error^2 = (SPREAD^2 + sum (d_i - gain)^2) / n^2                                    (2)
    taken: the largest gain, if above MARGIN, above its error and above the loss of any one condition     (3)

else none: augmentation must earn its place. (2) is the variance of a mean where one more condition is supposed to have
been off by SPREAD: with one or two conditions left out, what was seen does not tell how much conditions differ, and a
point or two mean nothing. RECONSTRUCTED: the rule and its constants are ours. SPREAD is a little below the standard
deviation of gains between the source's people in chest_har (6 to 13 points, by recipe). A fixed bound of two points on
the loss of one condition was dropped: it refused a mean gain of twelve points for one person's loss of six.

To stay affordable every fit gets at most `MAX_WINDOWS` windows, evenly spread, and fewer epochs; more than `MAX_FOLDS`
conditions are dealt into that many folds.

A source with one condition cannot answer. There the end of the recording, shifted by those kinds of
`acclimate.adaptation.data.corruptions`' tuning half that no recipe trains with, stands for new devices (a kind that was
trained with would always speak for training with it), and in (3) kinds of shift have no error, for nobody drew them.
That is
weak evidence and marked so: simulated shifts resemble one another more than they resemble the world. On gas_drift,
taken as one condition, they promise nine points where later batches lose ten. Leaving each kind out of the recipe in
turn, and judging by that kind, was tried and dropped: offset and noise without gain make a net worse at gains than no
recipe does, and nobody proposed to train so.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from acclimate.adaptation.data.augment import AUGMENTATIONS, Augmentation
from acclimate.adaptation.data.corruptions import TUNING, applicable, centre_and_scale, corrupt
from acclimate.adaptation.errors import DataError
from acclimate.adaptation.model.nets import Classifier
from acclimate.adaptation.model.spec import NetworkSpec
from acclimate.adaptation.model.train import check_source, default_epochs, fit, hold_out, predict

__all__ = [
    "MARGIN",
    "MAX_FOLDS",
    "MAX_WINDOWS",
    "SPREAD",
    "UNSHIFTED",
    "Choice",
    "Progress",
    "Score",
    "candidates",
    "choose_augmentation",
    "decide",
    "folds",
    "spread_rows",
]

Progress = Callable[[int, int, str], None]  # fits done, fits in all, what is next

MARGIN = 0.01
SPREAD = 0.05
MAX_FOLDS = 6
MAX_WINDOWS = 2000
_MAX_TEST_WINDOWS = 1000
_FIT_WINDOWS = 16_000  # windows times epochs of one fit: with fewer epochs augmented fits end unfinished, and lose
_LEAST_EPOCHS = 8
_LEAST_PER_CLASS = 20  # fewer, and what a fold tests is how well a class is learned from next to nothing
_LEAST_COMPARISONS = 4
_SEVERITY = 3.0
_SIMULATED_DEVICES = 4
_SIMULATED_REPETITIONS = 2
UNSHIFTED = "unshifted"

Windows = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Score:
    """The figures of one candidate on one condition.

    Attributes:
        candidate: ``none``, or a recipe in the form of `acclimate.adaptation.data.augment.parse_augmentation`.
        condition: Groups left out, joined by ``+``; in a simulated judgement the kind of shift, or ``unshifted``.
        accuracy: Share of right answers, 0 to 1, the mean over repetitions with other seeds.
        windows: Test windows of one repetition.
    """

    candidate: str
    condition: str
    accuracy: float
    windows: int


@dataclass(frozen=True)
class Choice:
    """The recipe to train with, and why.

    Attributes:
        augmentation: The recipe; None: train on windows as recorded.
        table: Every candidate on every condition.
        judged_by: ``groups`` left out, or ``simulated`` shifts where the source has one condition.
        weak: Whether the evidence is weak: simulated, or from a single condition left out.
        fits: Networks that were trained to find out.
    """

    augmentation: Augmentation | None
    table: tuple[Score, ...]
    judged_by: Literal["groups", "simulated"]
    weak: bool
    fits: int

    @property
    def name(self) -> str:
        """The chosen candidate's name in the table."""
        return "none" if self.augmentation is None else str(self.augmentation)

    def mean(self, candidate: str) -> float:
        """Return a candidate's accuracy, the mean over conditions."""
        return float(np.mean([score.accuracy for score in self.table if score.candidate == candidate]))


def candidates(channels: int) -> tuple[Augmentation, ...]:
    """Give the recipes that are tried; turned axes only where channels come in threes.

    >>> [str(recipe) for recipe in candidates(3)]
    ['gain+offset+noise:0.5', 'gain+offset+noise:1', 'gain+offset+noise+rotation:1']
    """
    kinds = ("gain", "offset", "noise")
    plain = (Augmentation(kinds, 0.5), Augmentation(kinds, 1.0))
    return plain if channels % 3 else (*plain, Augmentation((*kinds, "rotation"), 1.0))


def folds(labels: Labels, conditions: NDArray[np.str_]) -> tuple[tuple[str, NDArray[np.bool_]], ...]:
    """Give name and test windows, (n,), of each fold that the source can judge by.

    Conditions are dealt into at most `MAX_FOLDS` folds, in order of their names. A fold is left out where the others
    hardly show one of its classes: there a classifier fails for want of examples and not for want of robustness.

    >>> labels, conditions = np.tile([0, 1], 60), np.repeat(["a", "b"], 60)
    >>> [(name, int(test.sum())) for name, test in folds(labels, conditions)]
    [('a', 60), ('b', 60)]
    """
    names = np.unique(conditions)
    result = []
    for number in range(min(MAX_FOLDS, names.size)):
        dealt = names[number::MAX_FOLDS]
        test = np.isin(conditions, dealt)
        shown = np.bincount(labels[~test], minlength=int(labels.max()) + 1)
        if not test.all() and shown.min() >= _LEAST_PER_CLASS:
            result.append(("+".join(map(str, dealt)), test))
    return tuple(result)


def choose_augmentation(
    windows: Windows,
    labels: Labels,
    conditions: NDArray[np.str_],
    spec: NetworkSpec,
    seed: int,
    progress: Progress | None = None,
    epochs: int | None = None,
) -> Choice:
    """Choose how to augment the training of this source, or not to.

    Args:
        windows: (n, channels, length), raw and finite.
        labels: (n,) in 0..classes-1, each class present.
        conditions: (n,) what may be left out as a whole: usually the device; where one device was recorded under
            several conditions, those.
        spec: Network to train.
        seed: The seed for all random draws.
        progress: A function called before each fit and once at the end.
        epochs: Passes of each fit; by default fewer than a training's, so that all fits together cost little more than
            one training of a large source.

    Raises:
        ConfigError: Arguments do not fit each other.
        DataError: A class is missing, there is nothing to test on, or a training leads to numbers that are not finite.
    """
    check_source(windows, labels, conditions, spec)
    usable = folds(labels, conditions)
    trials = _Trials(windows, labels, spec, seed, epochs, progress)
    recipes = candidates(spec.channels)
    if not usable:  # simulated shifts cannot tell strengths apart: the answer would be the strength of the simulation
        recipes = tuple(recipe for recipe in recipes if recipe.strength == 1.0)
    table = trials.by_groups(usable, recipes) if usable else trials.by_simulation(conditions, recipes)
    return Choice(
        augmentation=decide(table, recipes, spread=SPREAD if usable else None),
        table=table,
        judged_by="groups" if usable else "simulated",
        weak=len(usable) < 2,
        fits=trials.done,
    )


def decide(
    table: Sequence[Score], recipes: Sequence[Augmentation], spread: float | None = SPREAD
) -> Augmentation | None:
    """Return the recipe with the largest gain that fulfils (3), or None.

    Args:
        table: Every candidate on the same conditions.
        recipes: The candidates but ``none``.
        spread: The factor of (2); raising it asks for more gain where conditions are few. None leaves the error away.

    >>> recipe = Augmentation(("gain",))
    >>> scores = [Score("none", "a", 0.5, 9), Score("none", "b", 0.5, 9), Score("gain:1", "a", 0.7, 9)]
    >>> decide([*scores, Score("gain:1", "b", 0.6, 9)], [recipe])
    Augmentation(kinds=('gain',), strength=1.0, clean_share=0.2)
    >>> decide([*scores, Score("gain:1", "b", 0.2, 9)], [recipe]) is None
    True
    """
    plain = {score.condition: score.accuracy for score in table if score.candidate == "none"}
    best, chosen = MARGIN, None
    for recipe in recipes:
        gains = [s.accuracy - plain[s.condition] for s in table if s.candidate == str(recipe)]  # (1)
        gain = float(np.mean(gains))
        error = 0.0
        if spread is not None:
            error = math.sqrt(spread**2 + sum((each - gain) ** 2 for each in gains)) / len(gains)  # (2)
        if gain > max(best, error, -min(gains)):  # (3)
            best, chosen = gain, recipe
    return chosen


class _Trials:
    """The fits of one choice, counted."""

    def __init__(
        self,
        windows: Windows,
        labels: Labels,
        spec: NetworkSpec,
        seed: int,
        epochs: int | None,
        progress: Progress | None,
    ) -> None:
        self.windows, self.labels, self.spec, self.seed = windows, labels, spec, seed
        self.epochs, self.progress = epochs, progress
        self.done, self.of = 0, 0

    def by_groups(
        self, usable: Sequence[tuple[str, NDArray[np.bool_]]], recipes: Sequence[Augmentation]
    ) -> tuple[Score, ...]:
        """Test every candidate on every fold; with few folds, several times with other seeds."""
        repetitions = -(-_LEAST_COMPARISONS // len(usable))
        self.of = len(usable) * repetitions * (1 + len(recipes))
        table = []
        for name, test in usable:
            rows = spread_rows(np.flatnonzero(test), _MAX_TEST_WINDOWS)
            for recipe in (None, *recipes):
                right = [
                    self._accuracy(self._fit(np.flatnonzero(~test), recipe, repetition), self.windows[rows], rows)
                    for repetition in range(repetitions)
                ]
                table.append(Score(_name(recipe), name, float(np.mean(right)), rows.size))
        return tuple(table)

    def by_simulation(self, conditions: NDArray[np.str_], recipes: Sequence[Augmentation]) -> tuple[Score, ...]:
        """Test every candidate on held-out windows, as recorded and under kinds of shift that none trains with."""
        test, _ = hold_out(self.labels, conditions, self.seed)
        if not test.any():
            raise DataError("the source is too small to hold out a test part: one window per class", "too_few_windows")
        shifted = self._shifted(spread_rows(np.flatnonzero(test), _MAX_TEST_WINDOWS))
        self.of = _SIMULATED_REPETITIONS * (1 + len(recipes))
        table = []
        for recipe in (None, *recipes):
            models = [self._fit(np.flatnonzero(~test), recipe, number) for number in range(_SIMULATED_REPETITIONS)]
            for kind, (windows, rows) in shifted.items():
                right = float(np.mean([self._accuracy(model, windows, rows) for model in models]))
                table.append(Score(_name(recipe), kind, right, rows.size))
        return tuple(table)

    def _shifted(self, rows: NDArray[np.int64]) -> dict[str, tuple[Windows, NDArray[np.int64]]]:
        """Give windows and their rows by kind of shift: several simulated devices, each with its own draw."""
        centre, scale = centre_and_scale(self.windows)
        dealt = [rows[device::_SIMULATED_DEVICES] for device in range(min(_SIMULATED_DEVICES, rows.size))]
        order = np.concatenate(dealt)
        result = {UNSHIFTED: (self.windows[order], order)}
        for kind in TUNING:
            if kind not in AUGMENTATIONS and applicable(kind, self.spec.channels, self.spec.length):
                parts = [
                    corrupt(self.windows[part], kind, _SEVERITY, scale, self.seed * 1000 + device, centre=centre)
                    for device, part in enumerate(dealt)
                ]
                result[kind] = np.concatenate(parts), order
        return result

    def _fit(self, rows: NDArray[np.int64], recipe: Augmentation | None, repetition: int) -> Classifier:
        if self.progress is not None:
            self.progress(self.done, self.of, f"training with {_name(recipe)}")
        rows = spread_rows(rows, MAX_WINDOWS)
        affordable = max(_LEAST_EPOCHS, _FIT_WINDOWS // rows.size)
        epochs = self.epochs or min(default_epochs(rows.size), affordable)
        seed = self.seed + 1_000_003 * repetition
        model = fit(self.windows[rows], self.labels[rows], self.spec, seed, epochs, recipe).model
        self.done += 1
        if self.progress is not None and self.done == self.of:
            self.progress(self.done, self.of, "done")
        return model

    def _accuracy(self, model: Classifier, windows: Windows, rows: NDArray[np.int64]) -> float:
        return float((predict(model, windows).argmax(axis=1) == self.labels[rows]).mean())


def _name(recipe: Augmentation | None) -> str:
    return "none" if recipe is None else str(recipe)


def spread_rows(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Give at most this many rows, evenly spread: neighbours overlap in time and say little that is new."""
    return rows[np.linspace(0, rows.size - 1, min(most, rows.size)).astype(np.int64)]
