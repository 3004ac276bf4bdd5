"""Follow a policy and remember what its gate saw; what the policy answers is unchanged."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from adaptation.method import State, Step
from adaptation.methods.policy import Policy

__all__ = ["WatchedPolicy"]

_POINTS = 200  # of the gate's course


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

    def summary(self) -> dict[str, Any]:
        """Sum up what the gate saw: its parts over their limits at the end, its course, who answered how many windows.

        The course is the gate of every decision, at the first window that the decision answered, and that at the end.
        """
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
        return {
            "mean": mean / settings.mean_limit,
            "variance": variance / settings.variance_limit,
            "largest": max(gates),
            "last": gates[-1],
            "curve": [[places[place] for place in shown], [gates[place] for place in shown]],
            "answered": answered / max(1, seen),
            "first_answered": first,
            "verdicts": verdicts,
        }
