"""Diversity guard: compare what a device's model answers with what the frozen source answers to the same windows.

Over the recent windows of one device, P its answers (n, K), P_src the source's:

    (1) h = share of windows answered with each class,  h_src alike       EMA, (K,)
    (2) dv = H(h) / ln K,  dv_src alike                                  diversity, 0 (one class) to 1
    (3) agr = share of windows where both answer the same class
    (4) e = mean H(P) / ln K;  MI = H(mean P) - mean H(P)                confidence and information, reported only
    (5) alarm if  dv_src - dv > 0.3 and sum |h - h_src| / 2 > 0.25,  or  KL(h || h_src) > tau ln K,
                  or  agr < 0.6 of its level on source windows

Low diversity alone is allowed: a machine that idles all night has one class, and the source then says so too.

The rules of (5) are RECONSTRUCTED from entropy and flip signals in EATA, SAR, AETTA and ASR. Four
choices are ours. A loss of diversity counts only if more than a quarter of the windows moved to other classes: with two
classes a source that slips in 1 of 19 windows already has dv = 0.3, and an idle machine would be an alarm. h counts
answered classes instead of averaging P, since the softmax of a prototype classifier is nearly flat: on an idle stream
its mean is far from a confident source's though both are right. h_src is mixed with 5 % of the uniform distribution in
KL, so that a class which the source never answers costs a bounded amount. The average

    (6) w <- min(w + 1, memory),  average <- average + (new - average) / w       window after window

does not depend on how windows are cut into batches. It starts from uniform answers and the level of agreement with the
weight of a few windows, so that it works at batch size 1: a first disagreement raises no alarm. A model that from now
on always answers the same, while the source finds all classes equally often, is found after at most (40 runs each, K =
2 / 6 / 100)

    one window at a time    29 / 14 / 6 windows at the start of a device, 76 / 52 / 36 later
    batches of 32           1 / 1 / 1 batches at the start of a device, 3 / 2 / 2 later

Limits. A method that is right where the source is wrong disagrees with it too: this guard trades such gains for safety.
A collapse onto the class that the source answers all the time cannot be seen before the source answers another.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from acclimate.adaptation.errors import ConfigError, DataError
from acclimate.adaptation.method import State

__all__ = ["Diversity", "DiversityGuard", "DiversityLimits"]

_FLOOR = 0.05  # share of the uniform distribution in h_src of the divergence
_MOVED = 0.25  # least share of windows that moved to other classes, for an alarm by diversity

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DiversityLimits:
    """The limits of the alarm; see (5). ``math.inf`` turns the first two off, 0 the third.

    Args:
        diversity_drop: Largest dv_src - dv. Raising it tolerates more collapse.
        divergence: tau, the largest KL(h || h_src), as a share of ln K. Raising it tolerates more change of the mix.
        agreement: Smallest agreement, as a share of its level on source windows, 0 to 1. Raising it alarms sooner.
        memory: Windows in the average. Raising it alarms later and less often by chance.
        prior: Windows that the start counts for. Raising it delays the first alarm.

    Raises:
        ConfigError: A value is out of range.
    """

    diversity_drop: float = 0.3
    divergence: float = 0.5
    agreement: float = 0.6
    memory: int = 64
    prior: int = 8

    def __post_init__(self) -> None:
        if self.diversity_drop <= 0 or self.divergence <= 0 or not 0 <= self.agreement <= 1:
            raise ConfigError(
                f"diversity limits: expected a drop and a divergence above 0 and an agreement from 0 to 1, got "
                f"{self.diversity_drop}, {self.divergence} and {self.agreement}"
            )
        if not 1 <= self.prior <= self.memory:
            raise ConfigError(
                f"diversity memory: expected 1 <= prior <= memory (windows), got {self.prior} and {self.memory}"
            )


@dataclass(frozen=True)
class Diversity:
    """The averages after a batch, and the rules that are broken: ``diversity``, ``divergence``, ``agreement``.

    Attributes:
        diversity, source_diversity: dv and dv_src, 0 to 1.
        divergence: KL(h || h_src) as a share of ln K.
        agreement: The agreement with the source, 0 to 1.
        entropy: e, 0 to 1.
        information_nats: MI.
        alarms: Empty while all is well.
    """

    diversity: float
    source_diversity: float
    divergence: float
    agreement: float
    entropy: float
    information_nats: float
    alarms: tuple[str, ...]


class DiversityGuard:
    """Configure the guard of one source model.

    Args:
        classes: K.
        level: Agreement of the method with the source on source windows, above 0 and at most 1.
        limits: The limits of the alarm.

    Raises:
        ConfigError: Fewer than 2 classes, or the level is out of range.

    >>> guard = DiversityGuard(classes=2)
    >>> source = torch.eye(2).repeat(16, 1)
    >>> guard.observe(guard.start(), source, source)[1].alarms
    ()
    >>> guard.observe(guard.start(), torch.tensor([[1.0, 0.0]]).expand(32, 2), source)[1].alarms
    ('diversity', 'divergence', 'agreement')
    """

    def __init__(self, classes: int, level: float = 1.0, limits: DiversityLimits | None = None) -> None:
        if classes < 2 or not 0 < level <= 1:
            raise ConfigError(
                f"diversity guard: expected at least 2 classes and a level of agreement above 0 and at most 1, "
                f"got {classes} and {level}"
            )
        self._classes, self._level, self._limits = classes, level, limits or DiversityLimits()

    def start(self) -> State:
        """Return the averages of a device that was never seen, (3 K + 3) float64 values.

        ``averages`` holds, in this order: h (K), h_src (K), mean P (K), agreement, mean H(P) in nats, the weight w.
        """
        uniform = torch.full((3 * self._classes,), 1 / self._classes, dtype=torch.float64)
        rest = torch.tensor([self._level, 0.0, self._limits.prior], dtype=torch.float64)
        return {"averages": torch.cat((uniform, rest))}

    def observe(self, state: State, probabilities: Tensor, source: Tensor) -> tuple[State, Diversity]:
        """Take in a batch of answers and return the averages after it and the verdict.

        Args:
            state: The state from `start` or the call before.
            probabilities: Answers of the device's model (n, K), n at least 1.
            source: Answers of the frozen source to the same windows (n, K).

        Raises:
            DataError: The shapes do not fit or an answer is not finite; nothing is taken in.
        """
        n, classes = len(probabilities), self._classes
        if n == 0 or probabilities.shape != (n, classes) or source.shape != (n, classes):
            raise DataError(
                f"diversity guard: expected two times (n, {classes}) answers with n at least 1, got "
                f"{tuple(probabilities.shape)} and {tuple(source.shape)}",
                "wrong_shape",
            )
        p, p_source = (rows.detach().double().numpy() for rows in (probabilities, source))  # (n, K) each
        if not (np.isfinite(p).all() and np.isfinite(p_source).all()):
            raise DataError("diversity guard: expected finite answers, got NaN or infinity", "not_finite")
        answered, said = p.argmax(axis=1), p_source.argmax(axis=1)  # (n,)
        old, memory = state["averages"].numpy(), self._limits.memory
        counts = np.minimum(old[-1] + np.arange(1, n + 1), memory)  # (n,): w of (6), window by window
        kept = np.append(np.cumprod((1 - 1 / counts)[::-1])[::-1], 1.0)  # (n + 1,): left of the past, of each window
        weights = kept[1:] / counts  # (n,)
        new = np.empty(3 * classes + 2)
        new[:classes] = np.bincount(answered, weights, classes)  # h of (1)
        new[classes : 2 * classes] = np.bincount(said, weights, classes)
        new[2 * classes : -2] = weights @ p
        new[-2] = weights @ (answered == said)  # (3)
        new[-1] = weights @ -(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=1)
        after = np.append(kept[0] * old[:-1] + new, counts[-1])  # (6)
        return {"averages": torch.from_numpy(after)}, self._verdict(after[:-1])

    def verdict(self, state: State) -> Diversity:
        """Return the verdict on the averages as they stand, without new answers."""
        return self._verdict(state["averages"].numpy()[:-1])

    def _verdict(self, averages: FloatArray) -> Diversity:
        classes, log_k, limits = self._classes, math.log(self._classes), self._limits
        h, h_source, p = averages[: 3 * classes].reshape(3, classes)
        diversity, source_diversity = _entropy(h) / log_k, _entropy(h_source) / log_k  # (2)
        log_mixed = np.log((1 - _FLOOR) * h_source + _FLOOR / classes)
        divergence = max(0.0, -_entropy(h) - float(h @ log_mixed)) / log_k
        moved = float(np.abs(h - h_source).sum()) / 2
        agreement, entropy = averages[-2:].tolist()
        broken = {
            "diversity": source_diversity - diversity > limits.diversity_drop and moved > _MOVED,
            "divergence": divergence > limits.divergence,
            "agreement": agreement < limits.agreement * self._level,
        }  # (5)
        return Diversity(
            diversity=diversity,
            source_diversity=source_diversity,
            divergence=divergence,
            agreement=agreement,
            entropy=entropy / log_k,  # (4)
            information_nats=_entropy(p) - entropy,
            alarms=tuple(name for name, alarm in broken.items() if alarm),
        )


def _entropy(shares: FloatArray) -> float:
    """Return -sum s ln s over all values, with 0 ln 0 = 0."""
    return -float((shares * np.log(np.where(shares > 0, shares, 1.0))).sum())
