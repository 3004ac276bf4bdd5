"""The accuracy matrix of a sequence of domains, and what it says about forgetting.

R[i, j] is the accuracy on domain j after training on domains 1 to i, i, j = 1..T; b[j] is the accuracy on domain j of a
model that learned none of them. Lopez-Paz and Ranzato, "Gradient Episodic Memory", 2017, but for (4) and (5):

    (1) ACC = 1/T sum_j R[T, j]
    (2) BWT = 1/(T-1) sum_{j<T} (R[T, j] - R[j, j])          negative where something was forgotten
    (3) FWT = 1/(T-1) sum_{j>1} (R[j-1, j] - b[j])
    (4) F   = 1/(T-1) sum_{j<T} (max_{i<T} R[i, j] - R[T, j])     Chaudhry et al., "Riemannian Walk", 2018
    (5) LA  = 1/T sum_j R[j, j]                           Riemer et al., "Learning to Learn without Forgetting", 2019

(5) is also what devices have that keep the model from the end of their own training, whatever is learned after it.
RECONSTRUCTED: b is the frozen source. The papers take random weights, which mean nothing for a model that is already at
work. (4) also counts as forgotten what a model could do before it was taught the domain, so F is at least -BWT.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.adaptation.errors import ConfigError

__all__ = ["AccuracyMatrix"]


@dataclass(frozen=True, eq=False)
class AccuracyMatrix:
    """R and b.

    Args:
        values: (T, T) R, each 0 to 1; T at least 1.
        start: (T,) b.

    Raises:
        ConfigError: Shapes do not fit, or a value is outside 0 to 1.

    >>> AccuracyMatrix(np.array([[0.9, 0.2], [0.6, 0.8]]), np.array([0.1, 0.1])).backward_transfer
    -0.30000000000000004
    """

    values: NDArray[np.float64]
    start: NDArray[np.float64]

    def __post_init__(self) -> None:
        domains = len(self.start)
        if domains == 0 or self.values.shape != (domains, domains):
            raise ConfigError(f"expected (T, T) values for T starts, got {self.values.shape} and {self.start.shape}")
        both = np.concatenate([self.values.ravel(), self.start])
        if not ((both >= 0) & (both <= 1)).all():
            raise ConfigError("accuracies are 0 to 1; some are outside, or not a number")

    @property
    def accuracy(self) -> float:
        """ACC: of the final model, mean of domains: (1)."""
        return float(self.values[-1].mean())

    @property
    def learning_accuracy(self) -> float:
        """LA: of each domain at the end of its own training: (5)."""
        return float(np.diag(self.values).mean())

    @property
    def backward_transfer(self) -> float:
        """BWT; 0 for a single domain: (2)."""
        return _mean(self.values[-1, :-1] - np.diag(self.values)[:-1])

    @property
    def forward_transfer(self) -> float:
        """FWT; 0 for a single domain: (3)."""
        return _mean(np.diag(self.values, 1) - self.start[1:])

    @property
    def forgetting(self) -> float:
        """F; 0 for a single domain. At least -BWT: (4)."""
        return _mean(self.values[:-1, :-1].max(axis=0, initial=0.0) - self.values[-1, :-1])


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else 0.0
