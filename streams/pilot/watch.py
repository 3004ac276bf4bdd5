"""Follow a policy and remember what its gate saw; what the policy answers is unchanged."""

from collections.abc import Mapping
from typing import Any

import torch

from adaptation.methods.method import State, Step
from adaptation.methods.policy import Policy
from streams.pilot.options import BATCH_SIZE

__all__ = ["WatchedPolicy"]


class WatchedPolicy:
    """A method that does what a policy does, and remembers its receipts and its last state.

    Args:
        policy: Configured.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._receipts: list[Mapping[str, str | float]] = []
        self._state: State = {}
        self.adapts, self.stateless = policy.adapts, policy.stateless

    def reset(self) -> State:
        """Start a device and forget the last one."""
        self._state, self._receipts = self._policy.reset(), []
        return self._state

    def adapt_batch(self, state: State, windows: torch.Tensor) -> tuple[State, Step]:
        """Answer as the policy does."""
        self._state, step = self._policy.adapt_batch(state, windows)
        self._receipts.append(step.receipt)
        return self._state, step

    def summary(self, windows: int) -> dict[str, Any]:
        """Say what the gate saw: its parts over their limits at the end, its course, how often the rung answered."""
        settings = self._policy.settings
        mean, variance = self._policy.distances(self._state)
        curve = [float(receipt["gate"]) for receipt in self._receipts[1:]] + [self._policy.gate(self._state)]
        verdicts = [str(receipt["verdict"]) for receipt in self._receipts]
        answering = [verdict in ("outside the range", "proven") for verdict in verdicts]
        places = [min(windows, (place + 1) * BATCH_SIZE) for place in range(len(curve))]
        return {
            "mean": mean / settings.mean_limit,
            "variance": variance / settings.variance_limit,
            "largest": max(curve),
            "last": curve[-1],
            "curve": [places, curve],
            "answered": sum(answering) / len(answering),
            "first_answered": places[answering.index(True)] - BATCH_SIZE if True in answering else None,
            "verdicts": {verdict: verdicts.count(verdict) for verdict in dict.fromkeys(verdicts)},
        }
