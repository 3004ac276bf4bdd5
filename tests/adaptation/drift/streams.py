"""Score streams for the drift tests."""

import numpy as np


def ar1(n: int, phi: float, seed: int) -> np.ndarray:
    """Return a stationary AR(1) series (n,) of mean 0 and variance 1."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    for t in range(1, n):
        x[t] = phi * x[t - 1] + np.sqrt(1 - phi**2) * x[t]
    return x
