"""Read many devices together: is it the world or this device, and which alarms survive being one of thousands?

Magnitudes of shift of d devices at t ticks split into a part that all share and what each has alone:

    (1) common_t = median over devices of magnitude_{t,d};   own_{t,d} = magnitude_{t,d} - common_t

A common part means weather, a software change, a new batch of material: retrain. An own part means a sensor that aged,
moved or broke: recalibrate that device, or exclude it. A median is not moved by the minority that is broken.

With thousands of devices some alarm is always on. Of all devices that are flagged, at most a share alpha should be
healthy ones (false discovery rate), in expectation. With N devices, p-values ascending and e-values descending:

    (2) Benjamini-Hochberg: flag the k smallest p, k = max{k: p_(k) <= alpha k / N}
    (3) e-BH:               flag the k largest e,  k = max{k: e_(k) >= N / (alpha k)}
    (4) p = (1 + #{reference >= x}) / (1 + n)         (5) e = 1 / (2 sqrt p)

(2) needs devices that are independent or move together (Benjamini and Hochberg, Journal of the Royal Statistical
Society B 57, 1995); (3) holds whatever their dependence, and pays with power (Wang and Ramdas, the same, 84, 2022).
(5) turns a p-value into an e-value (Vovk and Wang, "E-values: calibration, combination and applications", Annals of
Statistics 49, 2021, with kappa 1/2). Their input must be frozen before the tick that is judged.

By (4) no p is below 1/(n + 1): flagging one device of N at alpha takes a reference of about N/alpha windows, 4 N^2 /
alpha^2 for (5).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.adaptation.errors import ConfigError, DataError

__all__ = ["FleetShift", "decompose", "e_from_p", "flag_by_e", "flag_by_p", "p_values"]

Float64 = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class FleetShift:
    """Magnitudes, split.

    Attributes:
        common: (t,) of all devices.
        own: (t, d) of each device beyond that; NaN where it was absent.
    """

    common: Float64
    own: Float64


def decompose(magnitudes: Float64, present: Flags | None = None) -> FleetShift:
    """Split magnitudes (ticks, devices) by (1); the order of devices does not matter.

    Args:
        magnitudes: One number per tick and device, any unit; what is absent may hold anything.
        present: (ticks, devices) whether the device reported; all when not given.

    Raises:
        DataError: Shapes differ, a tick has no device, or a magnitude of a present device is not finite.
    """
    values = np.asarray(magnitudes, dtype=np.float64)
    mask = np.ones(values.shape, dtype=np.bool_) if present is None else present
    if values.ndim != 2 or mask.shape != values.shape:
        raise DataError(
            f"fleet: expected two arrays (ticks, devices), got {values.shape} and {mask.shape}", "wrong_shape"
        )
    if not mask.any(axis=1).all():
        raise DataError("fleet: a tick without any device has no common part; leave the tick out", "empty")
    if not np.isfinite(values[mask]).all():
        raise DataError("fleet: expected finite magnitudes, got NaN or infinity; mark the device absent", "not_finite")
    known = np.where(mask, values, np.nan)
    common: Float64 = np.nanmedian(known, axis=1)  # (t,)
    return FleetShift(common, known - common[:, None])  # (1)


def p_values(reference: Float64, values: Float64) -> Float64:
    """Return for each value (d,) how rare one as large is among reference values (n,), from 1/(n + 1) to 1.

    Raises:
        DataError: The reference is empty, or a number is not finite.

    >>> p_values(np.array([1.0, 2.0, 3.0]), np.array([2.5, 9.0, 0.0])).tolist()
    [0.5, 0.25, 1.0]
    """
    if len(reference) == 0:
        raise DataError("p-values: expected reference values, got none", "empty")
    if not (np.isfinite(reference).all() and np.isfinite(values).all()):
        raise DataError("p-values: expected finite numbers, got NaN or infinity", "not_finite")
    below = np.searchsorted(np.sort(reference), values, side="left")
    p: Float64 = (1 + len(reference) - below) / (1 + len(reference))  # (4)
    return p


def e_from_p(p: Float64) -> Float64:
    """Return e-values (d,) from p-values (d,): mean at most 1 while nothing is wrong, large where p is small.

    Raises:
        DataError: A p-value is not above 0 and up to 1.

    >>> e_from_p(np.array([1.0, 0.0001])).round(9).tolist()
    [0.5, 50.0]
    """
    if not ((p > 0) & (p <= 1)).all():
        raise DataError("p-values: expected numbers above 0 and up to 1", "out_of_range")
    e: Float64 = 0.5 / np.sqrt(p)  # (5)
    return e


def flag_by_p(p: Float64, alpha: float = 0.05) -> Flags:
    """Return which devices (d,) to flag by their p-values, by (2).

    Args:
        p: (d,) above 0 and up to 1.
        alpha: Share of false flags that is tolerated, 0 to 1. Raising it flags more.

    Raises:
        ConfigError: alpha is out of range.
        DataError: A p-value is.

    >>> flag_by_p(np.array([0.9, 0.01, 0.02, 0.2]), alpha=0.05).tolist()
    [False, True, True, False]
    """
    _check_alpha(alpha)
    if not ((p > 0) & (p <= 1)).all():
        raise DataError("p-values: expected numbers above 0 and up to 1", "out_of_range")
    ascending = np.sort(p)
    passing = np.flatnonzero(ascending <= alpha * np.arange(1, p.size + 1) / p.size)  # (2)
    return p <= ascending[passing[-1]] if passing.size else np.zeros(p.shape, dtype=np.bool_)


def flag_by_e(e: Float64, alpha: float = 0.05) -> Flags:
    """Return which devices (d,) to flag by their e-values, by (3), whatever their dependence.

    Args:
        e: (d,) from 0.
        alpha: Share of false flags that is tolerated, 0 to 1. Raising it flags more.

    Raises:
        ConfigError: alpha is out of range.
        DataError: An e-value is negative or NaN.

    >>> flag_by_e(np.array([1.0, 90.0, 45.0, 2.0]), alpha=0.05).tolist()
    [False, True, True, False]
    """
    _check_alpha(alpha)
    if not (e >= 0).all():
        raise DataError("e-values: expected numbers from 0", "out_of_range")
    descending = np.sort(e)[::-1]
    passing = np.flatnonzero(descending >= e.size / (alpha * np.arange(1, e.size + 1)))  # (3)
    return e >= descending[passing[-1]] if passing.size else np.zeros(e.shape, dtype=np.bool_)


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha: expected a share between 0 and 1, both excluded, got {alpha}")
