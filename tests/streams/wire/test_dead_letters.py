"""A letter must always fit its topic, name its reason and be readable, whatever the record was."""

from types import SimpleNamespace

import pytest

from acclimate.streams.wire.dead_letters import ATTEMPT, dead_letter, parse_letter
from acclimate.streams.wire.records import Incoming, header


def letter_of(**changes):
    values = {"partition": 2, "offset": 41, "timestamp_ms": 1_700_000_000_000, "key": b"pump", "value": b"x"}
    record = Incoming(topic="plant.features", **(values | {"headers": ()} | changes))
    return dead_letter(record, "plant.dlq", "decode", "not_json", "expected JSON", "DataError")


def read_back(letter):
    place = {"partition": 0, "offset": 7, "timestamp": 0}
    return parse_letter(SimpleNamespace(key=letter.key, value=letter.value, headers=list(letter.headers), **place))


def size(letter):
    return len(letter.key or b"") + len(letter.value or b"") + sum(len(n) + len(v) for n, v in letter.headers)


@pytest.mark.parametrize(
    "huge",
    [
        {"value": b"x" * 40_000_000},
        {"key": b"k" * 40_000_000},
        {"headers": (("h", b"x" * 40_000_000),)},
        {"headers": tuple((f"h{i}", b"x" * 100) for i in range(100_000))},
        {"headers": (("n" * 40_000_000, b""),)},
    ],
    ids=["value", "key", "header", "many headers", "header name"],
)
def test_a_record_that_unpacks_to_40_mb_gives_a_letter_that_fits_the_topic(huge):
    letter = letter_of(**huge)
    assert size(letter) < 2_097_152 - 10_000
    assert read_back(letter).reason == "not_json"


def test_a_letter_without_its_whole_record_cannot_be_driven_again():
    assert read_back(letter_of(value=b"x" * 2_000_000)).truncated
    assert read_back(letter_of(key=b"k" * 100_000)).truncated
    assert not read_back(letter_of()).truncated


def test_a_letter_reads_back_as_it_was_written():
    letter = read_back(letter_of(headers=((ATTEMPT, b"2"), ("site", b"north"))))
    assert (letter.origin_topic, letter.origin_partition, letter.origin_offset) == ("plant.features", 2, 41)
    assert (letter.stage, letter.reason, letter.message, letter.attempt) == ("decode", "not_json", "expected JSON", 2)
    assert header(letter.headers, "site") == b"north"


def test_error_headers_of_an_earlier_letter_are_not_piled_up():
    first = letter_of(headers=(("site", b"north"),))
    again = letter_of(headers=first.headers)
    assert sorted(name for name, _ in again.headers if name != "x-acclimate-headers-dropped") == sorted(
        name for name, _ in first.headers
    )


@pytest.mark.parametrize("value", [b"many", b"-1", b"9" * 400, "²".encode(), b"\xff", b""])
def test_a_hostile_attempt_number_counts_as_none(value):
    assert read_back(letter_of(headers=((ATTEMPT, value),))).attempt == 0


def test_a_record_that_is_no_letter_of_ours_can_be_listed():
    foreign = parse_letter(SimpleNamespace(key=None, value=None, headers=[], partition=0, offset=0, timestamp=0))
    assert (foreign.origin_topic, foreign.origin_offset, foreign.reason) == ("", -1, "")
