"""One run of continual learning over groups in turn: predict, then learn what has arrived, then judge everything.

For each domain (a group of the target), in order: a stretch of windows comes and is answered by the model from before
it; labels that are due arrive (`delayed_labels`); the learner learns. After each domain the model is judged on
stretches of every domain that nothing learns from (`domains`), and on such stretches of the source. To the learner, the
source is device 0 and the domains are devices from 1. Truth is used for scores, and reaches the learner as arrived
labels alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from acclimate.adaptation.continual.accuracy_matrix import AccuracyMatrix
from acclimate.adaptation.continual.delayed_labels import arrivals, labelled_rows
from acclimate.adaptation.continual.learner import Arrived, Learner
from acclimate.adaptation.method import State

__all__ = ["Domain", "Feedback", "Outcome", "accuracy", "run"]

_CHUNK = 256


@dataclass(frozen=True, eq=False)
class Domain:
    """One group.

    Attributes:
        name: The name of the group.
        windows, labels: (n, C, L) and (n,) to learn from, in order.
        judged_windows, judged_labels: The stretches between, which nothing learns from.
    """

    name: str
    windows: Tensor
    labels: Tensor
    judged_windows: Tensor
    judged_labels: Tensor


@dataclass(frozen=True)
class Feedback:
    """The rules by which labels come.

    Attributes:
        share: The share of windows that get a label, above 0 to 1.
        delay: Windows of the group between a window and its label.
        every: Windows between two looks at what has arrived.
        wrong: Share of labels that are another class, drawn evenly, 0 to below 1.
    """

    share: float = 0.05
    delay: int = 200
    every: int = 32
    wrong: float = 0.0


@dataclass(frozen=True, eq=False)
class Outcome:
    """The figures of one run.

    Attributes:
        matrix: R on the domains; its start is the source.
        source_accuracy: (T + 1,) on the source's judged stretches: of the source itself, then after each domain.
        right, source_right: The windows that the model of their time, and the source, answered right; (n,) per domain.
        efficiency: Mean over domains of the area under accuracy on the domain against labels of it, 0 to 1.
        labels: The number of labels that the learner was given.
        steps: The number of steps that it took.
        skipped: The number of steps that it did not take, because a value was not finite.
        seconds_per_step: The time of `Learner.learn`, all its work divided by its steps.
        state: The learner's state at the end.
    """

    matrix: AccuracyMatrix
    source_accuracy: NDArray[np.float64]
    right: tuple[NDArray[np.bool_], ...]
    source_right: tuple[NDArray[np.bool_], ...]
    efficiency: float
    labels: int
    steps: int
    skipped: int
    seconds_per_step: float
    state: State


def run(
    learner: Learner,
    domains: Sequence[Domain],
    source: Domain,
    feedback: Feedback,
    classes: int,
    seed: int,
    clock: Callable[[], float],
    after_domain: Callable[[int], None] = lambda done: None,
) -> Outcome:
    """Learn the domains one after the other.

    Args:
        learner: Configured from the source.
        domains: The domains in the order in which they come, at least one.
        source: Judged alone.
        feedback: The rules by which labels come.
        classes: K.
        seed: The seed that draws which windows get a label, and which labels are wrong.
        clock: A function that gives seconds.
        after_domain: A function called with the number of domains that are done.

    Raises:
        ConfigError: The feedback is out of range.
    """
    state = learner.start()
    model = learner.model(state)
    start = [accuracy(model, domain.judged_windows, domain.judged_labels) for domain in domains]  # nobody has adapters
    at_source = [accuracy(model, source.judged_windows, source.judged_labels)]
    source_right = tuple(_right(model, domain.windows, domain.labels) for domain in domains)
    right, rows, areas = [], [], []
    given = steps = skipped = 0
    seconds = 0.0
    for number, domain in enumerate(domains):
        count = len(domain.labels)
        labelled = labelled_rows(count, feedback.share, seed * 1000 + number)
        told = _told(domain.labels, feedback.wrong, classes, seed * 1000 + number)
        model = learner.model(state, number + 1)
        answered, curve = [], [(0, accuracy(model, domain.judged_windows, domain.judged_labels))]
        heard = 0
        for arrival in arrivals(count, labelled, feedback.delay, feedback.every):
            come = torch.from_numpy(arrival.unlabelled)
            answered.append(_right(model, domain.windows[come], domain.labels[come]))
            due = torch.from_numpy(arrival.labelled)
            heard += len(due)
            devices = torch.full((len(due),), number + 1)
            arrived = Arrived(domain.windows[due], told[due], devices, unlabelled=domain.windows[come])
            started = clock()
            state, report = learner.learn(state, arrived, finish=heard == len(labelled) and len(due) > 0)
            seconds += clock() - started
            steps, skipped = steps + report.steps, skipped + report.skipped
            if report.steps:
                model = learner.model(state, number + 1)
                curve.append((heard, accuracy(model, domain.judged_windows, domain.judged_labels)))
        given += heard
        right.append(np.concatenate(answered))
        areas.append(_area(curve, heard))
        models = [learner.model(state, device) for device in range(len(domains) + 1)]
        at_source.append(accuracy(models[0], source.judged_windows, source.judged_labels))
        judged = zip(models[1:], domains, strict=True)
        rows.append([accuracy(model, each.judged_windows, each.judged_labels) for model, each in judged])
        after_domain(number + 1)
    return Outcome(
        matrix=AccuracyMatrix(np.array(rows), np.array(start)),
        source_accuracy=np.array(at_source),
        right=tuple(right),
        source_right=source_right,
        efficiency=float(np.mean(areas)),
        labels=given,
        steps=steps,
        skipped=skipped,
        seconds_per_step=seconds / max(1, steps),
        state=state,
    )


def accuracy(model: nn.Module, windows: Tensor, labels: Tensor) -> float:
    """Return the share of windows (n, C, L) that are answered right, n at least 1."""
    return float(_right(model, windows, labels).mean())


@torch.no_grad()
def _right(model: nn.Module, windows: Tensor, labels: Tensor) -> NDArray[np.bool_]:
    starts = range(0, len(labels), _CHUNK)
    found = [model(windows[at : at + _CHUNK]).argmax(dim=1) == labels[at : at + _CHUNK] for at in starts]
    return torch.cat(found).numpy() if found else np.zeros(0, dtype=np.bool_)


def _told(labels: Tensor, wrong: float, classes: int, seed: int) -> Tensor:
    """Return the labels as they will be told: some are another class."""
    rng = np.random.default_rng([seed, 22])
    hit = torch.from_numpy(rng.random(len(labels)) < wrong)
    other = (labels + torch.from_numpy(rng.integers(1, classes, len(labels)))) % classes
    return torch.where(hit, other, labels)


def _area(curve: Sequence[tuple[int, float]], labels: int) -> float:
    """Return the mean height of a curve of steps from 0 to `labels`."""
    ends = [at for at, _ in curve[1:]] + [labels]
    return sum((end - at) * height for (at, height), end in zip(curve, ends, strict=True)) / labels
