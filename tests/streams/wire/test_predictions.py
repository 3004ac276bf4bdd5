"""Whoever counts answers must agree on what an answer is, whatever else lies in the topic."""

import json

import pytest

from acclimate.streams.wire.predictions import answered_output, parse_prediction
from tests.support.answers import answer, window


def recorded(**changes: object) -> bytes:
    record = answer(0, 0, 0, "a", 0, [window(1, 2, 2, 3.0), window(1, 0, 1, 0.5)]).record
    return json.dumps({**record.model_dump(), **changes}).encode()


def test_an_answer_is_read_with_what_answered_each_window() -> None:
    record = parse_prediction(recorded())
    assert record is not None
    assert [answered_output(each).label for each in record.windows] == [2, 1]


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"noise",
        b"[]",
        b"\xff",
        b"{}",
        recorded(schema_version=2),
        recorded(receipt=None),
        recorded(windows=3),
    ],
)
def test_noise_is_no_answer_and_raises_nothing(value: bytes | None) -> None:
    assert parse_prediction(value) is None


def test_an_answer_that_names_leantta_without_its_output_is_the_source() -> None:
    record = parse_prediction(recorded())
    assert record is not None
    lacking = record.windows[0].model_copy(update={"adapted": None})
    assert answered_output(lacking) == lacking.source
