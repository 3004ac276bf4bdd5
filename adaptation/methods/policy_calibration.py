"""Ask the source's own devices what the policy may do: leave one out, stream it in time order, try each rung.

Each device (at most six folds of them) is left out of a small training and then streamed through a policy as it would
ship, guards and all, that answers by one rung whenever its guards let it. Three things are read off:

    (1) limits  the farthest that any of these devices got from the others' statistics, each part of the gate alone, on
                its way and if it went on for ever: a limit must not depend on how long a recording is; likewise the
                smallest running agreement of the rung with the source at each age, where a device that has ended
                keeps its last
    (2) proven  the rung with the largest mean gain, if the lower end of its one-sided 99 % interval (t, over devices)
                is above 0, no device loses more than `MOST_HARM`, and there are at least `LEAST_DEVICES` of them; it
                may answer always, and the smallest agreement of any device at an age becomes its limit there
    (3) gated   else device-lifetime statistics, behind the gate. No left-out device is beyond its own limit, so nobody
                saw them at work there: the table tells only how they do inside, where they will not answer

A source that cannot leave a device out, because it has one, proves nothing, and the source answers. The end of its own
recording under faint shifts (severity `TOLERATED`, kinds of the tuning half) stands for devices that need no help, and
gives the limits, so that the gate is still reported; what lifetime statistics, prototypes and LeanTTA would do under
strong ones (`STRONG`) stands in the table, and decides nothing. It once did: on the bearing whose sensor was moved,
LeanTTA, which won by its mean over kinds, lost 1.0 points, and lifetime statistics, which won by the median, 3.6. Such
settings are marked ``weak``; so are those of a source that can leave out only one condition.

Labels are the source's; nothing here sees a target. RECONSTRUCTED: the procedure is ours. The interval of (2) is a high
bar and no guarantee: devices of one fold share a model, folds share data, and three rungs are tried. Lifetime
statistics stand behind the gate because they gained most there in our reference evaluation; LeanTTA was safe and
modest.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from acclimate.adaptation.data.augment import Augmentation
from acclimate.adaptation.data.corruptions import TUNING, applicable, centre_and_scale, corrupt
from acclimate.adaptation.evaluation.run import balanced_rows
from acclimate.adaptation.method import SourceContext
from acclimate.adaptation.methods.policy import PERIOD, Policy
from acclimate.adaptation.methods.policy_settings import AGREEMENT_AGES, PolicySettings, Rung, RungScore
from acclimate.adaptation.model.robust import folds, spread_rows
from acclimate.adaptation.model.spec import NetworkSpec
from acclimate.adaptation.model.train import default_epochs, fit, hold_out

__all__ = [
    "LEAST_DEVICES",
    "MOST_HARM",
    "STRONG",
    "TOLERATED",
    "by_age",
    "calibrate_policy",
    "decide",
    "lower_end",
    "trained_on",
]

Progress = Callable[[int, int, str], None]  # trainings done, in all, what is next

LEAST_DEVICES = 4
MOST_HARM = 0.02
TOLERATED = 1.0
STRONG = 4.0
# A rung that is proven may follow a device fast; one that nobody saw at work on a real device follows slowly.
_PROVEN_PSEUDO_WINDOWS = 256.0
_GATED_PSEUDO_WINDOWS = 1024.0
_PROVABLE: tuple[Rung, ...] = ("statistics", "prototypes", "statistics+prototypes")
_SIMULATED: tuple[Rung, ...] = ("statistics", "prototypes", "leantta")
_T_99 = (math.inf, 31.82, 6.965, 4.541, 3.747, 3.365, 3.143, 2.998, 2.896, 2.821, 2.764, 2.718, 2.681, 2.650, 2.624)
_T_99_LARGE = 2.624  # a little too wide beyond 14 degrees of freedom
_MAX_WINDOWS = 3000
_FIT_WINDOWS = 24_000  # windows times epochs of one fit
_LEAST_EPOCHS = 6
_SHIFTED_WINDOWS = 500
_LEAST_LIMIT = 1e-6
_SAMPLE = 512  # source windows that tell what a channel looks like

Windows = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class _Streamed:
    """The figures of one rung on one stream; gate parts are not yet divided by any limit."""

    source_accuracy: float
    accuracy: float
    mean_distance: float
    variance_distance: float
    agreement: tuple[float, ...]


def calibrate_policy(
    windows: Windows,
    labels: Labels,
    devices: NDArray[np.str_],
    spec: NetworkSpec,
    seed: int,
    augmentation: Augmentation | None = None,
    progress: Progress | None = None,
) -> PolicySettings:
    """Return what the policy may do with a model that is trained on this source in this way.

    Args:
        windows: (n, channels, length) raw source windows, each device in time order.
        labels: (n,) in 0..classes-1.
        devices: (n,) names; conditions of one device where there are several and devices are not.
        spec: Network.
        seed: The seed of the trainings and the simulated shifts.
        augmentation: Recipe of the source model.
        progress: A function called before each training and once at the end.

    Raises:
        DataError: A training leads to numbers that are not finite.
    """
    usable = folds(labels, devices)
    weak = len(usable) < 2
    if not usable:
        return _by_simulation(windows, labels, devices, spec, seed, augmentation, progress)
    streamed = {}
    for number, (name, test) in enumerate(usable):
        if progress is not None:
            progress(number, len(usable), f"policy: without {name}")
        context = trained_on(np.flatnonzero(~test), windows, labels, spec, seed, augmentation)
        for device in np.unique(devices[test]):
            own = np.flatnonzero(devices == device)
            for rung in _PROVABLE:
                result = _stream(context, rung, _PROVEN_PSEUDO_WINDOWS, windows[own], labels[own])
                streamed[str(device), rung] = result
    if progress is not None:
        progress(len(usable), len(usable), "done")
    limits = _limits(list(streamed.values()))
    table = tuple(_score(device, rung, result, limits) for (device, rung), result in streamed.items())
    proven = decide(table)
    if proven is None:
        return PolicySettings("statistics", True, *limits, _GATED_PSEUDO_WINDOWS, weak, table=table)
    ages = zip(*(score.agreement for score in table if score.rung == proven), strict=True)
    return PolicySettings(proven, False, *limits, _PROVEN_PSEUDO_WINDOWS, weak, tuple(map(min, ages)), table)


def decide(table: Sequence[RungScore]) -> Rung | None:
    """Return the rung that source devices prove (2), or None."""
    best, chosen = 0.0, None
    for rung in _PROVABLE:
        gains = np.array([score.accuracy - score.source_accuracy for score in table if score.rung == rung])
        if gains.size < LEAST_DEVICES or gains.min() < -MOST_HARM:
            continue
        if lower_end(gains) > 0 and gains.mean() > best:
            best, chosen = float(gains.mean()), rung
    return chosen


def lower_end(gains: NDArray[np.float64]) -> float:
    """Return the lower end of the one-sided 99 % interval (t) of the mean gain over devices, (n,); -inf for one.

    >>> round(lower_end(np.array([0.1, 0.2, 0.3])), 3)
    -0.202
    """
    if gains.size < 2:
        return -math.inf
    t = _T_99[gains.size - 1] if gains.size <= len(_T_99) else _T_99_LARGE
    return float(gains.mean() - t * gains.std(ddof=1) / math.sqrt(gains.size))


def _by_simulation(
    windows: Windows,
    labels: Labels,
    devices: NDArray[np.str_],
    spec: NetworkSpec,
    seed: int,
    augmentation: Augmentation | None,
    progress: Progress | None,
) -> PolicySettings:
    """Let the simulator stand in for the devices that the source lacks: limits and a table, but no rung."""
    if progress is not None:
        progress(0, 1, "policy: one device, simulated shifts")
    held_out, _ = hold_out(labels, devices, seed)
    context = trained_on(np.flatnonzero(~held_out), windows, labels, spec, seed, augmentation)
    # Thinned, not cut: a recording shows one class after the other.
    rows = spread_rows(np.flatnonzero(held_out & (devices == devices[0])), _SHIFTED_WINDOWS)
    centre, scale = centre_and_scale(windows)
    kinds = [kind for kind in TUNING if applicable(kind, spec.channels, spec.length)]

    def stream(kind: str, severity: float, rung: Rung) -> _Streamed:
        shifted = corrupt(windows[rows], kind, severity, scale, seed, centre=centre)
        return _stream(context, rung, _GATED_PSEUDO_WINDOWS, shifted, labels[rows])

    tolerated = {kind: stream(kind, TOLERATED, "statistics") for kind in kinds}
    limits = _limits(list(tolerated.values()))
    strong = {(kind, rung): stream(kind, STRONG, rung) for kind in kinds for rung in _SIMULATED}
    table = [_score(f"{kind}:{TOLERATED:g}", "statistics", result, limits) for kind, result in tolerated.items()]
    table += [_score(f"{kind}:{STRONG:g}", rung, result, limits) for (kind, rung), result in strong.items()]
    if progress is not None:
        progress(1, 1, "done")
    return PolicySettings("source", True, *limits, _GATED_PSEUDO_WINDOWS, weak=True, table=tuple(table))


def trained_on(
    rows: NDArray[np.int64],
    windows: Windows,
    labels: Labels,
    spec: NetworkSpec,
    seed: int,
    augmentation: Augmentation | None,
) -> SourceContext:
    """Return the source that the policy is asked with: trained on at most 3000 of these rows, for at most so long."""
    sample = rows[balanced_rows(labels[rows], _SAMPLE, seed)]
    rows = spread_rows(rows, _MAX_WINDOWS)
    epochs = min(default_epochs(rows.size), max(_LEAST_EPOCHS, _FIT_WINDOWS // rows.size))
    model = fit(windows[rows], labels[rows], spec, seed, epochs, augmentation).model
    return SourceContext(model, torch.from_numpy(windows[sample]), torch.from_numpy(labels[sample]), seed)


def _limits(results: Sequence[_Streamed]) -> tuple[float, float]:
    """Return the farthest of each part of the gate (1)."""
    return (
        max(_LEAST_LIMIT, *(result.mean_distance for result in results)),
        max(_LEAST_LIMIT, *(result.variance_distance for result in results)),
    )


def _stream(context: SourceContext, rung: Rung, pseudo_windows: float, windows: Windows, labels: Labels) -> _Streamed:
    """Stream a device through one rung that always answers."""
    policy = Policy(context, PolicySettings(rung, False, 1.0, 1.0, pseudo_windows, weak=False))
    state = policy.reset()
    answers, source, distances, agreements = [], [], [(0.0, 0.0)], {0: 1.0}
    for part in torch.split(torch.from_numpy(windows), PERIOD):
        state, step = policy.adapt_batch(state, part)
        answers.append(step.probabilities.argmax(dim=1).numpy())
        distances.append(policy.distances(state))
        agreements[int(state["windows"])] = policy.agreement(state)
        source.append(context.model(part).argmax(dim=1).numpy())
    distances.append(policy.distances(state, pseudo_windows=0.0))
    return _Streamed(
        source_accuracy=float((np.concatenate(source) == labels).mean()),
        accuracy=float((np.concatenate(answers) == labels).mean()),
        mean_distance=max(mean for mean, _ in distances),
        variance_distance=max(variance for _, variance in distances),
        agreement=by_age(agreements),
    )


def by_age(agreements: Mapping[int, float]) -> tuple[float, ...]:
    """Return the smallest of these running agreements, by windows seen, from each age to the next; else the last."""
    smallest, last = [], list(agreements.values())[-1]
    for start, stop in pairwise((*AGREEMENT_AGES, math.inf)):
        at_age = [agreement for windows, agreement in agreements.items() if start <= windows < stop]
        smallest.append(min(at_age, default=last))
    return tuple(smallest)


def _score(device: str, rung: Rung, result: _Streamed, limits: tuple[float, float]) -> RungScore:
    return RungScore(
        device=device,
        rung=rung,
        source_accuracy=result.source_accuracy,
        accuracy=result.accuracy,
        gate=max(result.mean_distance / limits[0], result.variance_distance / limits[1]),
        agreement=result.agreement,
    )
