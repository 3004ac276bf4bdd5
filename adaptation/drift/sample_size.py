"""The number of independent windows that a run of dependent ones is worth."""

from acclimate.adaptation.errors import ConfigError, DataError

__all__ = ["effective_size"]


def effective_size(windows: int, phi: float) -> float:
    """Return n (1 - phi) / (1 + phi), at least 1 and at most n: the sample size for means of an AR(1) series.

    Args:
        windows: n, at least 1.
        phi: Correlation of neighbouring windows, between -1 and 1; raising it makes the windows worth less.

    Raises:
        ConfigError: phi is out of range.
        DataError: No window is given.

    >>> effective_size(64, 0.0), effective_size(90, 0.8)
    (64.0, 10.0)
    """
    if not -1 < phi < 1:
        raise ConfigError(f"phi: expected a correlation between -1 and 1, both excluded, got {phi}")
    if windows < 1:
        raise DataError(f"effective size: expected at least one window, got {windows}", "empty")
    # Rounding keeps 90 (1 - 0.8) / (1 + 0.8) at 10.
    return min(float(windows), max(1.0, round(windows * (1 - phi) / (1 + phi), 9)))
