"""The tables over several recordings, from rows written by hand."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from acclimate.streams.lab.evaluate.rows import Row
from benchmarks.side_by_side import main

ROW: dict[str, Any] = dict.fromkeys(Row.__dataclass_fields__) | {
    "stream": "ordered", "batch_size": 64, "augment": "none", "recipe": "none", "n": 10, "macro_f1": 0.5,
    "worst_class_recall": 0.5, "nll": 1.0, "ece": 0.1, "block": 1, "blocks": 10, "label_run": 1, "by_severity": (),
    "collapsed": False, "resets": 0, "updates": 0, "selected": 0, "state_bytes": 0,
}  # fmt: skip


def row(method: str, group: str, accuracy: float, change: float, harmed: bool, seconds: float) -> dict[str, Any]:
    own = {"method": method, "group": group, "seed": 0, "accuracy": accuracy, "change": change, "harmed": harmed}
    return asdict(Row(**(ROW | own | {"seconds_per_window": seconds})))


def folder(path: Path, *rows: dict[str, Any]) -> Path:
    path.mkdir()
    (path / "results.json").write_text(json.dumps({"rows": rows}))
    return path


def test_a_cell_is_the_mean_change_and_the_share_of_harmed_groups_and_a_method_that_was_not_run_is_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = folder(
        tmp_path / "one",
        row("source", "a", 0.5, 0.0, False, 1e-6),
        row("source", "b", 0.25, 0.0, False, 3e-6),
        row("tent", "a", 0.6, 0.1, False, 5e-6),
        row("tent", "b", 0.05, -0.2, True, 7e-6),
    )
    two = folder(tmp_path / "two", row("source", "c", 0.75, 0.0, False, 9e-6))
    main([f"one={one}", f"two={two}"])
    printed = capsys.readouterr().out
    assert "### ordered, batch 64, source none" in printed
    assert "| method | one, 1 seed | two, 1 seed |" in printed
    assert "| source | 37.5 % | 75.0 % |" in printed
    assert "| tent | -5.0 (50 %) |  |" in printed
    assert "| source | 2 | 9 |" in printed
    assert "| tent | 6 |  |" in printed


def test_a_method_on_fewer_seeds_says_so_and_a_source_that_is_as_the_plain_one_has_no_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = row("source", "a", 0.5, 0.0, False, 1e-6)
    auto = row("tent", "a", 0.5, 0.0, False, 1e-6) | {"augment": "auto"}
    one = folder(tmp_path / "one", source, source | {"seed": 1}, row("tent", "a", 0.6, 0.1, False, 1e-6), auto)
    main([f"one={one}"])
    printed = capsys.readouterr().out
    assert "| method | one, 2 seeds |" in printed
    assert "| tent | +10.0 (0 %, 1 seed) |" in printed
    assert "source auto" not in printed


def test_a_folder_without_results_is_refused_with_what_was_expected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([f"one={tmp_path}"])
    assert "expected NAME=DIR" in capsys.readouterr().err


def test_a_method_of_an_older_run_stands_under_its_name_of_today(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, lean = row("source", "a", 0.5, 0.0, False, 1e-6), row("lean-b", "a", 0.6, 0.1, False, 1e-6)
    main([f"one={folder(tmp_path / 'one', source, lean)}"])
    assert "| leantta | +10.0 (0 %) |" in capsys.readouterr().out
