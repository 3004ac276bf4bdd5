"""Mahalanobis distance on frozen source features: is this window one that the source could have made?

Features z in R^D are what the head of the source model sees. They must come from the frozen source: the features of an
adapting network drift by themselves and would feed the detector its own updates. Each feature is first standardised by
the source, so units do not matter; then

    (1) S = 1/n sum_k x_k x_k^T,  m = tr(S) / D
    (2) d^2 = |S - m I|^2,  b^2 = min(d^2, 1/n^2 sum_k |x_k x_k^T - S|^2)      Frobenius norms
    (3) Sigma = b^2/d^2 m I + (1 - b^2/d^2) S
    (4) per window  d^2(z) / D = x^T Sigma^-1 x / D                             about 1 in the mean on the source
    (5) per batch   M = n_eff xbar^T Sigma^-1 xbar                              about chi-squared with D degrees on it

(1)-(3): Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", Journal of
Multivariate Analysis 88, 2004, lemmas 3.2 to 3.4. Nothing is updated by what is scored: a reference that follows the
data absorbs slow drift. The detector gets log d^2/D, which is closer to symmetric.

RECONSTRUCTED: features that are constant on the source (units that never fire) have no scale and are left out; the log
is taken of at least 1e-6.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.adaptation.drift.sample_size import effective_size
from acclimate.adaptation.errors import ConfigError, DataError

__all__ = ["FeatureReference", "batch_distance", "fit_features", "ledoit_wolf", "log_scores", "window_distances"]

# Of a feature relative to its mean, of a direction relative to the widest: below it a deviation is rounding.
_LEAST_SPREAD = 1e-6
_LEAST_DISTANCE = 1e-6

Float64 = NDArray[np.float64]
AnyFloat = NDArray[np.float32] | NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FeatureReference:
    """The source's features, frozen; one per model, shared by all devices.

    Attributes:
        mean: (F,) of all features, read-only float64.
        whitening: (F, D) read-only float64: (z - mean) @ whitening has covariance near I; zero rows for the features
            that are left out.
        shrinkage: b^2/d^2 of (3): 0 where the sample covariance is trusted, 1 where only its trace is.
    """

    mean: Float64
    whitening: Float64
    shrinkage: float

    @property
    def dimension(self) -> int:
        """D, the features that count."""
        return int(self.whitening.shape[1])


def ledoit_wolf(centred: Float64) -> tuple[Float64, float]:
    """Return the shrunk covariance (D, D) of centred rows (n, D), and the share of the identity in it, 0 to 1.

    >>> covariance, share = ledoit_wolf(np.array([[1.0, 1.0], [-1.0, -1.0]]))
    >>> covariance.tolist(), share
    ([[1.0, 1.0], [1.0, 1.0]], 0.0)
    """
    n, d = centred.shape
    sample = centred.T @ centred / n  # (1)
    mean_variance = float(np.trace(sample)) / d
    target = mean_variance * np.eye(d)
    distance = float(((sample - target) ** 2).sum())
    # |x x^T - S|^2 summed over rows, without n matrices in memory: the cross term is -2 n |S|^2.
    fourth = float((np.einsum("nd,nd->n", centred, centred) ** 2).sum())
    error = max(0.0, fourth - n * float((sample**2).sum())) / n**2
    share = 1.0 if distance == 0 else min(1.0, error / distance)  # (2)
    return share * target + (1 - share) * sample, share  # (3)


def fit_features(features: AnyFloat) -> FeatureReference:
    """Fit the reference to source features (n, F), best of windows that the source model was trained on.

    Raises:
        DataError: Fewer than two rows, values that are not finite, or no feature that varies.
    """
    z = _checked(features)
    if len(z) < 2:
        raise DataError(f"feature reference: expected at least two source windows, got {len(z)}", "too_few_windows")
    mean, std = z.mean(axis=0), z.std(axis=0)
    alive = np.flatnonzero(std > _LEAST_SPREAD * np.abs(mean))
    if alive.size == 0:
        raise DataError("feature reference: every feature is constant on the source; nothing to measure by", "constant")
    covariance, share = ledoit_wolf((z[:, alive] - mean[alive]) / std[alive])
    values, vectors = np.linalg.eigh(covariance)
    # Collinear features and few rows leave directions without variance; they must not divide by 0.
    root = vectors / np.sqrt(np.maximum(values, _LEAST_SPREAD * values.max()))  # (D, D)
    whitening = np.zeros((z.shape[1], alive.size))
    whitening[alive] = root / std[alive, None]
    mean.flags.writeable = whitening.flags.writeable = False
    return FeatureReference(mean, whitening, share)


def window_distances(reference: FeatureReference, features: AnyFloat) -> Float64:
    """Return d^2/D (n,) of features (n, F); about 1 in the mean on the source, larger for what it never showed.

    Raises:
        DataError: The features do not fit the reference, or one is not finite.
    """
    white = (_checked(features, reference) - reference.mean) @ reference.whitening  # (n, D)
    distances: Float64 = (white**2).mean(axis=1)  # (4)
    return distances


def log_scores(reference: FeatureReference, features: AnyFloat) -> Float64:
    """Return ln d^2/D (n,), the score that `cusum` watches.

    Raises:
        DataError: The features do not fit the reference, or one is not finite.
    """
    return np.log(np.maximum(window_distances(reference, features), _LEAST_DISTANCE))


def batch_distance(reference: FeatureReference, features: AnyFloat, effective: float | None = None) -> float:
    """Return M of a batch of features (n, F): about D on the source; the order of the windows does not matter.

    Args:
        reference: The reference of the source.
        features: The features of one device.
        effective: Independent windows among them, see `effective_size`; n when not given.

    Raises:
        ConfigError: ``effective`` is not above 0.
        DataError: No window, or features that do not fit the reference or are not finite.
    """
    z = _checked(features, reference)
    n = effective_size(len(z), 0.0) if effective is None else effective
    if not n > 0:
        raise ConfigError(f"effective: expected a number of windows above 0, got {n}")
    white = (z.mean(axis=0) - reference.mean) @ reference.whitening  # (D,)
    return float(n * (white**2).sum())  # (5)


def _checked(features: AnyFloat, reference: FeatureReference | None = None) -> Float64:
    z = np.asarray(features, dtype=np.float64)
    if z.ndim != 2 or (reference is not None and z.shape[1] != reference.mean.shape[0]):
        expected = "(n, F)" if reference is None else f"(n, {reference.mean.shape[0]})"
        raise DataError(f"features: expected shape {expected}, got {z.shape}", "wrong_shape")
    if not np.isfinite(z).all():
        raise DataError("features: expected finite values, got NaN or infinity", "not_finite")
    return z
