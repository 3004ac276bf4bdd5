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
    if found_hz is None or model_hz is None or same_rate(found_hz, model_hz):
        return
    raise DataError(
        f"the windows were sampled at {found_hz:g} Hz, the model takes {model_hz:g} Hz (2 % at most); resample on the "
        "device, or train a model for this rate",
        "wrong_rate",
    )


def check_session_rate(found_hz: float | None, first_hz: float | None) -> None:
    """Check windows against the first rate of their session; None, a rate that nobody has named, fits any.

    Raises:
        DataError: ``wrong_rate``.
    """
    if found_hz is None or first_hz is None or same_rate(found_hz, first_hz):
        return
    raise DataError(
        f"the windows were sampled at {found_hz:g} Hz, earlier ones of this session at {first_hz:g} Hz (2 % at most); "
        "a session has one rate: start a new client for another",
        "wrong_rate",
    )
