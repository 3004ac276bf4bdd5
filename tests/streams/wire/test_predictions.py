"""Whoever counts answers must agree on what an answer is, whatever else lies in the topic."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.streams.wire.predictions import answered_probabilities, parse_prediction
from tests.support.answers import by_window, receipt, record, record_v1, window

RECEIPT = receipt("a" * 64)
WINDOWS = [
    {
        **window(1, 2, 2, 3.0, flags=("event_time_implausible",)),
        "shift": {
            "magnitude": 3.0,
            "mean": 3.0,
            "variance": 0.5,
            "layers_mean": [0.25, 3.5],
            "layers_variance": [0.5, 0.125],
        },
        "distance": [0.5, 0.0],
        "gain": [0.75, 0.0],
    },
    {
        **window(1, 0, 1, 0.5),
        "shift": {
            "magnitude": 0.5,
            "mean": 0.25,
            "variance": 0.5,
            "layers_mean": [0.125, 1.5],
            "layers_variance": [2.5, 0.0],
        },
        "distance": [0.25, 0.0],
        "gain": [0.875, 0.0],
    },
]


def recorded(**changes: object) -> dict[str, Any]:
    return {**record("pump-7", 5, WINDOWS, RECEIPT), **changes}


def changed(*path: object, to: object) -> dict[str, Any]:
    """Return the record with another value at one place."""
    value = copy.deepcopy(recorded())
    inner: Any = value
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = to
    return value


def read(value: object) -> Any:
    return parse_prediction(json.dumps(value).encode())


def test_an_answer_has_the_probabilities_of_what_answered_each_window() -> None:
    found = read(recorded())
    assert found.answered_by == ["leantta", "source"]
    assert answered_probabilities(found) == [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]


def test_where_nothing_adapts_the_source_answers() -> None:
    found = read(record("pump-7", 5, [window(1, None, 1, 3.0)], RECEIPT))
    assert (found.adapted, found.adapted_by, found.answered_by) == (None, None, ["source"])
    assert answered_probabilities(found) == [[0.0, 1.0, 0.0]]


@pytest.mark.parametrize("windows", [WINDOWS, [window(1, None, 1, 3.0), window(0, None, 0, 0.5)]])
def test_both_versions_of_one_answer_are_the_same_columns(windows: list[dict[str, Any]]) -> None:
    old, new = record_v1("pump-7", 5, windows, RECEIPT), record("pump-7", 5, windows, RECEIPT)
    found = read(old)
    assert by_window(found.model_dump()) == by_window(new)
    assert found == read(new)
    assert list(by_window(new)) == [each["event_id"] for each in old["windows"]]


def test_a_class_that_version_1_does_not_name_is_named_by_its_number() -> None:
    entries = [{**window(2, 2, 2, 3.0), "class_name": "bearing"}]
    assert read(record_v1("pump-7", 5, entries, RECEIPT)).class_names == ["0", "1", "bearing"]


@pytest.mark.parametrize("version", [record, record_v1])
def test_a_rung_a_flag_and_a_mode_that_nobody_knows_are_read_by_name(version: Any) -> None:
    entries = [window(1, 2, 2, 3.0, rung="dreams", flags=("too_loud",)), window(1, 0, 1, 0.5, rung="dreams")]
    found = read(version("pump-7", 5, entries, RECEIPT.model_copy(update={"mode": "boldly"})))
    assert found.answered_by == ["dreams", "source"]
    assert found.flags == {"too_loud": [0]}
    assert found.receipt.mode == "boldly"
    assert answered_probabilities(found)[0] == [0.0, 0.0, 1.0]


def test_fields_that_came_later_are_read_and_left_out_while_they_are_none() -> None:
    receipt_now = {**recorded()["receipt"], "gate": "distance", "precision": "int8", "placement": "worker"}
    found = read(recorded(doubt=[0.25, 1.0], receipt=receipt_now, added_later={"nested": True}))
    assert found.doubt == [0.25, 1.0]
    assert found.receipt.model_dump() == receipt_now
    assert read(recorded()).model_dump() == recorded()


NOISE: dict[str, Any] = {
    "no version": {k: v for k, v in recorded().items() if k != "schema_version"},
    "another version": recorded(schema_version=3),
    "version 1 with columns": recorded(schema_version=1),
    "no receipt": recorded(receipt=None),
    "no windows": {
        name: [] if isinstance(value, list) and name != "class_names" else value for name, value in recorded().items()
    },
    "no classes": recorded(class_names=[]),
    "too many windows": recorded(event_times_ms=[0] * 257),
    "a column that is too short": recorded(labels=[2]),
    "a column that is too long": recorded(answered_by=["source"] * 3),
    "a name that is too long": recorded(answered_by=["x" * 65, "source"]),
    "a name that is empty": recorded(answered_by=["", "source"]),
    "a digest that is none": recorded(input_digests=["d" * 64, "x"]),
    "too few rows": changed("source", "probabilities", to=[[1.0, 0.0, 0.0]]),
    "a ragged row": changed("adapted", "probabilities", 1, to=[1.0, 0.0]),
    "another width than classes": changed("class_names", to=["a", "b"]),
    "another width than layers": changed("gain", to=[[0.5], [0.5]]),
    "a ragged layer": changed("shift", "layers_variance", 0, to=[0.5]),
    "a label below all classes": changed("source", "labels", 0, to=-1),
    "a label above all classes": changed("labels", 0, to=3),
    "a huge label": changed("adapted", "labels", 0, to=10**30),
    "a label that is a word": changed("labels", 0, to="1"),
    "no number": changed("shift", "magnitude", 0, to=float("nan")),
    "infinity": changed("source", "probabilities", 0, 0, to=float("inf")),
    "more than float32 holds": changed("distance", 0, 0, to=1e39),
    "doubt above 1": recorded(doubt=[0.5, 1.5]),
    "doubt that is no number": recorded(doubt=[0.5, float("nan")]),
    "too little doubt": recorded(doubt=[0.5]),
    "a flag outside": recorded(flags={"event_time_implausible": [2]}),
    "a flag before the first": recorded(flags={"event_time_implausible": [-1]}),
    "an answer that nobody gave": recorded(adapted=None, adapted_by=None),
    "an adapted output of nobody": recorded(adapted_by=None),
    "version 1, an answer that nobody gave": record_v1(
        "pump-7", 5, [{**WINDOWS[0], "adapted": None}, WINDOWS[1]], RECEIPT
    ),
    "version 1, labels outside": record_v1("pump-7", 5, [{**WINDOWS[0], "label": 3}], RECEIPT),
    "version 1, without windows": record_v1("pump-7", 5, [], RECEIPT),
    "version 1, a time outside": record_v1("pump-7", 5, [{**WINDOWS[0], "event_time_ms": 2**63}], RECEIPT),
}


@pytest.mark.parametrize("value", NOISE.values(), ids=NOISE.keys())
def test_a_record_that_contradicts_itself_is_no_answer(value: object) -> None:
    assert read(value) is None


@pytest.mark.parametrize(
    "value",
    [None, b"", b"noise", b"[]", b"\xff", b"{}", b"2", b'{"schema_version":' * 10_000, b"[" * 100_000],
    ids=["null", "empty", "noise", "list", "not UTF-8", "object", "number", "deep objects", "deep lists"],
)
def test_noise_is_no_answer_and_raises_nothing(value: bytes | None) -> None:
    assert parse_prediction(value) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
PLACES = [
    *((name,) for name in recorded()),
    *((part, name) for part in ("source", "adapted", "shift") for name in recorded()[part]),
    *((name, 1) for name in ("event_times_ms", "input_digests", "answered_by", "labels", "distance", "gain")),
    *((part, name, 1) for part in ("source", "adapted", "shift") for name in recorded()[part]),
]


@given(place=st.sampled_from(PLACES), junk=JSON)
def test_whatever_stands_at_one_place_a_reader_gets_whole_columns_or_nothing(place: Any, junk: object) -> None:
    found = read(changed(*place, to=junk))
    if found is not None:
        assert len(by_window(found.model_dump())) == len(answered_probabilities(found)) == len(found.labels)
        assert all(found.class_names[label] for labels in (found.labels, found.source.labels) for label in labels)
