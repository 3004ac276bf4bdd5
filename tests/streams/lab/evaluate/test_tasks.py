"""The file of finished tasks: what a kill can do to it, and what is never lost."""

from dataclasses import replace
from pathlib import Path

import pytest

from acclimate.adaptation.errors import ContractError
from acclimate.streams.lab.evaluate.tasks import Task, append_finished, forget_tasks, open_finished, read_finished

TASK = Task("none", 0, "ordered", 8, "tent", "a")
OTHER = replace(TASK, method="source", group='a "quoted" | name')


def group(n: int) -> dict[str, object]:
    return {"n": n, "data": "0" * 12, "recorded": "gA==", "label_run": 1}


def test_what_was_appended_is_read_again_and_a_repeated_task_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "finished.jsonl"
    assert read_finished(path) == ({}, 0)
    with open_finished(path) as file:
        append_finished(file, TASK, {"groups": [group(1)]})
        append_finished(file, OTHER, {"groups": [group(2)]})
        append_finished(file, TASK, {"groups": [group(3)]})
    finished, sound = read_finished(path)
    assert {task: entry["groups"] for task, entry in finished.items()} == {TASK: [group(3)], OTHER: [group(2)]}
    assert sound == path.stat().st_size


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_line_that_a_kill_cut_short_is_dropped_and_written_again(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "finished.jsonl"
    with open_finished(path) as file:
        append_finished(file, TASK, {"groups": []})
        append_finished(file, OTHER, {"groups": []})
    path.write_bytes(path.read_bytes()[:-cut])
    assert set(read_finished(path)[0]) == {TASK}
    with open_finished(path) as file:
        append_finished(file, OTHER, {"groups": [group(4)]})
    assert read_finished(path)[0][OTHER]["groups"] == [group(4)]
    assert path.read_bytes().count(b"\n") == 2


def test_damage_in_the_middle_is_reported_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "finished.jsonl"
    with open_finished(path) as file:
        append_finished(file, TASK, {"groups": []})
        append_finished(file, OTHER, {"groups": []})
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b'{"task": 1}\n' + lines[1])
    with pytest.raises(ContractError, match="line 1 is damaged"):
        read_finished(path)


def test_results_that_are_not_numbers_are_never_written(tmp_path: Path) -> None:
    path = tmp_path / "finished.jsonl"
    with open_finished(path) as file, pytest.raises(ValueError, match="not JSON compliant"):
        append_finished(file, TASK, {"nll": float("nan")})
    assert path.read_bytes() == b""


def test_lines_of_an_older_format_are_not_finished_and_older_names_are_known(tmp_path: Path) -> None:
    path = tmp_path / "finished.jsonl"
    with open_finished(path) as file:
        append_finished(file, TASK, {"groups": [{"n": 1, "right": "gA=="}]})
        append_finished(file, replace(OTHER, source="gain,noise:1"), {"groups": [group(1)]})
        for former in ("lean-a", "lean-b", "lean-hybrid"):
            append_finished(file, replace(OTHER, method=former), {"groups": [group(1)]})
    assert set(read_finished(path)[0]) == {
        replace(OTHER, source="gain+noise:1"),
        *(replace(OTHER, method=name) for name in ("leantta-a", "leantta", "leantta-hybrid")),
    }


def test_tasks_can_be_forgotten_and_the_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "finished.jsonl"
    with open_finished(path) as file:
        append_finished(file, TASK, {"groups": []})
        append_finished(file, OTHER, {"groups": [group(2)]})
    assert forget_tasks(path, [TASK, replace(OTHER, seed=1)]) == 1
    assert forget_tasks(path, [TASK]) == 0
    assert {task: entry["groups"] for task, entry in read_finished(path)[0].items()} == {OTHER: [group(2)]}
