"""Turn scores of single devices into a rung's gain: over the target, or as expected from devices left out.

A gain is the mean over devices, each counting once, with the 95 % interval of a bootstrap over devices (1):

    (1) mean* = mean of m devices drawn with replacement from the m there are; 10,000 times; 2.5 % and 97.5 % quantiles

Devices are what a fleet has more of, so they and not windows are drawn. Below three devices there is no interval.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from acclimate.adaptation.methods.policy_settings import RungScore

__all__ = ["RUNGS", "DeviceScore", "Gain", "gain_of", "simulated_scores"]

# Names in the catalogue, and in words. The source is what they are compared with.
RUNGS: Mapping[str, str] = {
    "leantta": "LeanTTA",
    "cum-bn": "device statistics",
    "t3a": "prototypes",
    "policy": "policy",
}

_DRAWS = 10_000
_LEAST_FOR_INTERVAL = 3
_LOSS = 0.01


@dataclass(frozen=True)
class DeviceScore:
    """The score of a rung on one device, against the source of the same recipe on the same windows.

    Attributes:
        device: The name of the device; for a simulated shift, its kind and severity.
        source_accuracy, accuracy: The accuracies without and with the rung, 0 to 1.
        change: The mean difference, -1 to 1.
        low, high: The ends of its 95 % block-bootstrap interval; equal to ``change`` where there is none.
        harmed: True where the whole interval lies below zero; None where the recording is too short to tell. Without an
            interval, true where more than a point was lost.
    """

    device: str
    source_accuracy: float
    accuracy: float
    change: float
    low: float
    high: float
    harmed: bool | None

    @classmethod
    def without_interval(cls, device: str, source_accuracy: float, accuracy: float) -> "DeviceScore":
        """Compare two accuracies where no more than these is known."""
        change = accuracy - source_accuracy
        return cls(device, source_accuracy, accuracy, change, change, change, change < -_LOSS)


@dataclass(frozen=True)
class Gain:
    """The gain of a rung over several devices.

    Attributes:
        mean: The change in accuracy, the mean over devices, -1 to 1.
        low, high: The ends of its 95 % interval (1), None with fewer than three devices.
        worst, best: The change on the worst and the best device.
        devices: The number of devices.
        harmed: The names of the harmed ones.
        undecided: The names of those whose recording is too short to tell.
    """

    mean: float
    low: float | None
    high: float | None
    worst: float
    best: float
    devices: int
    harmed: tuple[str, ...]
    undecided: tuple[str, ...] = ()


def gain_of(scores: Sequence[DeviceScore], seed: int = 0) -> Gain | None:
    """Sum up devices; None where there is none.

    >>> scores = [DeviceScore.without_interval("a", 0.25, 0.5), DeviceScore.without_interval("b", 0.5, 0.25)]
    >>> gain_of(scores)
    Gain(mean=0.0, low=None, high=None, worst=-0.25, best=0.25, devices=2, harmed=('b',), undecided=())
    """
    if not scores:
        return None
    changes = np.array([score.change for score in scores])
    low = high = None
    if len(scores) >= _LEAST_FOR_INTERVAL:
        drawn = np.random.default_rng([seed, 17]).integers(0, len(scores), (_DRAWS, len(scores)))
        low, high = (float(end) for end in np.quantile(changes[drawn].mean(axis=1), [0.025, 0.975]))  # (1)
    return Gain(
        mean=float(changes.mean()),
        low=low,
        high=high,
        worst=float(changes.min()),
        best=float(changes.max()),
        devices=len(scores),
        harmed=tuple(score.device for score in scores if score.harmed),
        undecided=tuple(score.device for score in scores if score.harmed is None),
    )


def simulated_scores(table: Sequence[RungScore]) -> dict[str, list[DeviceScore]]:
    """Read a policy's table by rung of the catalogue; rungs of the policy that the pilot does not show are left out."""
    names = {"leantta": "leantta", "statistics": "cum-bn", "prototypes": "t3a"}
    found: dict[str, list[DeviceScore]] = {}
    for row in table:
        if row.rung in names:
            score = DeviceScore.without_interval(row.device, row.source_accuracy, row.accuracy)
            found.setdefault(names[row.rung], []).append(score)
    return found
