"""The join of ledger, answers and truth, on records made by hand; every expected value was counted by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from acclimate.adaptation.errors import ConfigError, DataError
from acclimate.streams.audit.join import Answer, Arrival, Joined, Published, join, read_ledger
from acclimate.streams.wire.dead_letters import DeadLetter
from tests.support.answers import SESSION, answer, window

LEDGER = [
    Published("a", SESSION, 0, (10, 11)),
    Published("b", SESSION, 0, (20,)),
    Published("a", SESSION, 2, (12, 13)),
]
LABELS = {10: 0, 11: 1, 12: 2, 13: 0, 20: 1}
ARRIVALS = [
    Arrival(0, 100, 1_000, ("a", SESSION, 0)),
    Arrival(1, 7, 1_005, ("b", SESSION, 0)),
    Arrival(0, 101, 1_010, ("a", SESSION, 2)),
]


def letter(partition: int, offset: int, reason: str = "wrong_shape") -> DeadLetter:
    return DeadLetter(0, 0, b"a", b"", (), "f.features", partition, offset, "decode", reason, "", 0, 0)


def joined(answers: list[Answer], letters: list[DeadLetter] | None = None) -> Joined:
    return join(LEDGER, ARRIVALS, answers, letters or [], LABELS)


def complete() -> list[Answer]:
    return [
        answer(0, 50, 1_030, "a", 0, [window(0, 1, 0, 0.5), window(1, 0, 0, 2.0)]),
        answer(1, 9, 1_009, "b", 0, [window(0, 1, 1, 1.5)]),
        answer(0, 51, 1_025, "a", 2, [window(2, 2, 2, 0.1), window(1, 1, 1, 0.2)]),
    ]


def test_a_complete_run_is_joined_in_the_order_of_the_ledger() -> None:
    found = joined(complete())
    assert found.windows == 5
    assert found.device.tolist() == ["a", "a", "b", "a", "a"]
    assert found.row.tolist() == [10, 11, 20, 12, 13]
    assert found.label.tolist() == [0, 1, 1, 2, 0]
    assert found.source_label.tolist() == [0, 1, 0, 2, 1]
    assert found.adapted_label.tolist() == [1, 0, 1, 2, 1]
    assert found.answered_label.tolist() == [0, 0, 1, 2, 1]
    assert found.answered_by.tolist() == ["source", "leantta", "leantta", "source", "source"]
    assert set(found.adapted_by.tolist()) == {"leantta"}
    assert found.latency_ms.tolist() == [30, 30, 4, 15, 15]
    assert (found.lost, found.duplicates, found.conflicts, found.unknown) == ((), 0, 0, 0)


def test_of_two_answers_to_one_event_the_lowest_offset_counts() -> None:
    later = answer(0, 60, 1_090, "a", 0, [window(2, 2, 2, 9.0), window(2, 2, 2, 9.0)], bundle="b" * 64)
    found = joined([later, *complete()])
    assert found.source_label.tolist()[:2] == [0, 1]
    assert (found.duplicates, found.reanswered) == (0, 2)


def test_a_repeated_answer_is_a_duplicate_and_no_conflict() -> None:
    first = complete()[0]
    again = Answer(first.partition, 70, 1_500, first.digest, first.record)
    found = joined([*complete(), again])
    assert (found.duplicates, found.conflicts, found.reanswered) == (1, 0, 0)
    assert found.latency_ms.tolist()[:2] == [30, 30]


def test_other_bytes_under_one_output_id_are_a_conflict() -> None:
    first = complete()[0]
    forged = Answer(first.partition, 70, 1_500, "0" * 64, first.record)
    assert joined([*complete(), forged]).conflicts == 1


def test_an_event_without_answer_and_without_dead_letter_is_lost() -> None:
    found = joined(complete()[:2])
    assert found.lost == (f"a/{SESSION}/2", f"a/{SESSION}/3")
    assert len(found) == 3


def test_the_windows_of_a_dead_letter_are_not_lost() -> None:
    found = joined(complete()[:2], [letter(0, 101)])
    assert (found.lost, found.dead_windows, found.dead_letters) == ((), 2, {"wrong_shape": 1})


def test_a_dead_letter_ends_where_the_next_record_begins() -> None:
    ledger = [Published("a", SESSION, 0, (10, 11, 12))]  # the client made two records of it
    arrivals = [Arrival(0, 1, 10, ("a", SESSION, 0)), Arrival(0, 2, 10, ("a", SESSION, 2))]
    found = join(ledger, arrivals, [], [letter(0, 1)], LABELS)
    assert (found.dead_windows, found.lost) == (2, (f"a/{SESSION}/2",))


def test_a_dead_letter_of_somebody_else_is_foreign() -> None:
    found = joined(complete(), [letter(0, 999), letter(0, 100, "bug")])
    assert (found.foreign_letters, found.dead_letters, found.dead_windows) == (1, {"bug": 1}, 0)


def test_an_answer_to_an_event_outside_the_ledger_is_unknown() -> None:
    stranger = answer(2, 1, 1_000, "c", 0, [window(0, 0, 0, 1.0), window(0, 0, 0, 1.0)])
    assert joined([*complete(), stranger]).unknown == 2


def test_a_window_whose_input_is_gone_has_no_latency() -> None:
    found = join(LEDGER, ARRIVALS[1:], complete(), [], LABELS)
    assert found.arrived_ms.tolist() == [-1, -1, 1_005, 1_010, 1_010]
    assert found.latency_ms.tolist() == [4, 15, 15]


def test_rows_without_a_time_axis_count_the_source_as_adapted() -> None:
    found = join(LEDGER[1:2], ARRIVALS, [answer(1, 9, 1_009, "b", 0, [window(1, None, 1, 0.3)])], [], LABELS)
    assert (found.adaptable, found.adapted_label.tolist(), found.adapted_by.tolist()) == (False, [1], ["source"])
    np.testing.assert_array_equal(found.adapted_probabilities, found.source_probabilities)


def test_a_record_with_another_number_of_classes_is_joined_and_its_probabilities_are_no_numbers() -> None:
    odd = {**window(0, None, 0, 0.5), "source": {"label": 0, "probabilities": [0.75, 0.25]}}
    found = joined([*complete()[:2], answer(0, 51, 1_025, "a", 2, [odd, odd])])
    assert found.answered_label.tolist() == [0, 0, 1, 0, 0]
    assert np.isnan(found.source_probabilities).all(axis=1).tolist() == [False, False, False, True, True]


def test_devices_are_listed_as_people_count() -> None:
    names = ["p10", "p9", "p9b", "a"]
    ledger = [Published(name, SESSION, 0, (10,)) for name in names]
    answers = [answer(0, i, 0, name, 0, [window(0, 0, 0, 0.1)]) for i, name in enumerate(names)]
    assert join(ledger, [], answers, [], LABELS).devices == ["a", "p9", "p9b", "p10"]


def test_a_ledger_of_other_data_is_refused() -> None:
    with pytest.raises(DataError, match="row 13, which the data selection does not have"):
        join(LEDGER, ARRIVALS, complete(), [], {10: 0, 11: 1, 12: 2, 20: 1})


def test_an_event_that_is_twice_in_the_ledger_is_refused() -> None:
    with pytest.raises(DataError, match="twice"):
        join([*LEDGER, LEDGER[0]], ARRIVALS, complete(), [], LABELS)


def test_the_ledger_leaves_out_notes_and_an_unfinished_last_line(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    line = json.dumps({"device": "a", "session": SESSION, "seq": 4, "rows": [7, 8]})
    path.write_text(f'{{"ledger": 1, "data": "x"}}\n{line}\n{line[:20]}')
    assert read_ledger(path) == [Published("a", SESSION, 4, (7, 8))]


@pytest.mark.parametrize(
    "line", ["[]", '{"device": "a"}', "no json", '{"device": "a", "session": "", "seq": "x", "rows": []}']
)
def test_a_damaged_ledger_names_the_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text(f'{{"ledger": 1}}\n{line}\n')
    with pytest.raises(DataError, match="line 2"):
        read_ledger(path)


def test_an_absent_or_empty_ledger_says_who_writes_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="acclimate fleet"):
        read_ledger(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text('{"ledger": 1}\n')
    with pytest.raises(ConfigError, match="no record"):
        read_ledger(tmp_path / "empty.jsonl")
