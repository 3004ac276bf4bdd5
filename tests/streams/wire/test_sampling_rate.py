"""Two rates are one up to 2 %, and a refusal says what was expected, what came and what to do."""

import contextlib

import pytest

from acclimate.adaptation.errors import DataError
from acclimate.streams.wire.sampling_rate import check_model_rate, check_session_rate


# 2 % of 52 Hz are 1.04 Hz: 50.96 to 53.04 are taken.
@pytest.mark.parametrize(
    ("found_hz", "taken"), [(52.9, True), (53.1, False), (51.0, True), (50.9, False), (52.0, True), (104.0, False)]
)
def test_a_rate_is_refused_from_two_per_cent_of_the_expected_one_on(found_hz: float, taken: bool) -> None:
    for check in (check_model_rate, check_session_rate):
        with contextlib.nullcontext() if taken else pytest.raises(DataError) as caught:
            check(found_hz, 52.0)
        assert taken or caught.value.reason == "wrong_rate"


def test_the_refusals_say_both_rates_and_what_to_do() -> None:
    with pytest.raises(DataError) as caught:
        check_model_rate(104.0, 52.0)
    assert str(caught.value) == (
        "the windows were sampled at 104 Hz, the model takes 52 Hz (2 % at most); resample on the device, or train a "
        "model for this rate"
    )
    with pytest.raises(DataError) as caught:
        check_session_rate(104.0, 52.0)
    assert str(caught.value) == (
        "the windows were sampled at 104 Hz, earlier ones of this session at 52 Hz (2 % at most); a session has one "
        "rate: start a new client for another"
    )


def test_a_rate_that_nobody_names_is_not_refused() -> None:
    for check in (check_model_rate, check_session_rate):
        check(None, 52.0)
        check(104.0, None)
