"""Follow a policy and remember what its gate saw; what the policy answers is unchanged."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from acclimate.adaptation.method import State, Step
from acclimate.adaptation.methods.policy import Policy
from acclimate.streams.lab.pilot.shifts import Course

__all__ = ["Gate", "WatchedPolicy"]

_POINTS = 200  # of the gate's course


@dataclass(frozen=True)
class Gate:
    """What the gate of a policy saw of a device; 1 is the limit of the gate and of its parts.

    Attributes:
        mean, variance: The parts of the gate at the end.
        largest, last: The largest value of the gate, and that at the end.
        curve: The gate of every decision, at the first window that the decision answered, and that at the end.
        answered: The share of windows that the rung answered, 0 to 1.
        first_answered: The first window that it answered; None where it answered none.
        verdicts: The number of windows by verdict.
    """

    mean: float
    variance: float
    largest: float
    last: float
    curve: Course
    answered: float
    first_answered: int | None
    verdicts: Mapping[str, int]


class WatchedPolicy:
    """A method that does what a policy does, and remembers its receipts and its last state.

    Args:
        policy: The policy, configured.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._receipts: list[Mapping[str, Any]] = []
        self._state: State = {}
        self.adapts, self.stateless = policy.adapts, policy.stateless

    def reset(self) -> State:
        """Start a device and forget the last one."""
        self._state, self._receipts = self._policy.reset(), []
        return self._state

    def adapt_batch(self, state: State, windows: torch.Tensor) -> tuple[State, Step]:
        """Answer as the policy does."""
        self._state, step = self._policy.adapt_batch(state, windows)
        self._receipts += step.receipts
        return self._state, step

    def summary(self) -> Gate:
        """Sum up what the gate saw."""
        settings = self._policy.settings
        mean, variance = self._policy.distances(self._state)
        verdicts: dict[str, int] = {}
        places, gates, answered, first = [], [], 0, None
        seen = 0
        for receipt in self._receipts:
            if receipt["verdict"] not in ("first period", "input refused"):
                places.append(seen)
                gates.append(float(receipt["gate"]))
            if receipt["rung"] != "source":
                answered += receipt["windows"]
                first = seen if first is None else first
            verdicts[receipt["verdict"]] = verdicts.get(receipt["verdict"], 0) + receipt["windows"]
            seen += receipt["windows"]
        places.append(seen)
        gates.append(self._policy.gate(self._state))
        shown = np.unique(np.linspace(0, len(gates) - 1, min(_POINTS, len(gates))).astype(np.int64))
        return Gate(
            mean=mean / settings.mean_limit,
            variance=variance / settings.variance_limit,
            largest=max(gates),
            last=gates[-1],
            curve=([places[place] for place in shown], [gates[place] for place in shown]),
            answered=answered / max(1, seen),
            first_answered=first,
            verdicts=verdicts,
        )
