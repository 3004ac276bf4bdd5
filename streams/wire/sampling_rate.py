"""When two sampling rates count as one: worker and device keep the same rule, so both refuse the same windows."""

from acclimate.adaptation.errors import DataError

__all__ = ["TOLERANCE", "check_model_rate", "check_session_rate", "same_rate"]

TOLERANCE = 0.02  # of the rate expected: crystals differ by far less, another setting of a sensor by far more


def same_rate(found_hz: float, expected_hz: float) -> bool:
    """Tell whether a rate is within 2 % of the one expected.

    >>> same_rate(52.9, 52.0), same_rate(53.1, 52.0)
    (True, False)
    """
    return abs(found_hz - expected_hz) <= TOLERANCE * expected_hz


def check_model_rate(found_hz: float | None, model_hz: float | None) -> None:
    """Check windows against the model that answers them; None, a rate that nobody has named, fits any.

    Raises:
        DataError: ``wrong_rate``.
    """
    _check(found_hz, model_hz, "the model takes", "resample on the device, or train a model for this rate")


def check_session_rate(found_hz: float | None, first_hz: float | None) -> None:
    """Check windows against the first rate of their session; None, a rate that nobody has named, fits any.

    Raises:
        DataError: ``wrong_rate``.
    """
    advice = "a session has one rate: start a new client for another"
    _check(found_hz, first_hz, "earlier ones of this session at", advice)


def _check(found_hz: float | None, expected_hz: float | None, whose: str, advice: str) -> None:
    if found_hz is None or expected_hz is None or same_rate(found_hz, expected_hz):
        return
    raise DataError(
        f"the windows were sampled at {found_hz:g} Hz, {whose} {expected_hz:g} Hz (2 % at most); {advice}",
        "wrong_rate",
    )
