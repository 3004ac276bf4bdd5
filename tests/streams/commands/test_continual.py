"""`acclimate continual`, end to end on a small recording: what it writes, resuming, adding, and each wrong use."""

import json
from pathlib import Path
from typing import Any

import pytest

from acclimate.adaptation.errors import ContractError
from acclimate.streams.cli import main
from acclimate.streams.lab.continual.options import FINE_TUNED
from acclimate.streams.lab.continual.runs import Run, read_run

QUICK = ["--methods", "naive,ftp+er", "--seeds", 1, "--label-fraction", 0.5, "--label-delay", 5, "--steps", 2]

pytestmark = pytest.mark.xdist_group("continual")  # what is made once for all tests is made by one process


def run(recordings: Path, out: Path, *arguments: object) -> int:
    basics = ["--data", recordings, "--source", "device=0-3", "--target", "device=4-5", "--out", out, "--jobs", 0]
    with pytest.raises(SystemExit) as stopped:
        main(["continual", *map(str, basics), *map(str, arguments)])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


@pytest.fixture(scope="module")
def whole(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("continual") / "out"
    assert run(recordings, out, *QUICK) == 0
    return out


def results_of(out: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((out / "results.json").read_text())
    return results


def timeless(out: Path) -> list[dict[str, Any]]:
    return [{name: v for name, v in each.items() if name != "seconds_per_step"} for each in results_of(out)["runs"]]


def test_what_was_promised_is_written(whole: Path) -> None:
    results = results_of(whole)
    assert [line["method"] for line in results["summary"]] == ["naive", "ftp+er"]
    keys = {"method", "accuracy", "bwt", "fwt", "forgetting", "source_accuracy", "seconds_per_step", "closed"}
    assert all(line.keys() >= keys for line in results["summary"])
    assert results["groups"] == ["4", "5"]
    learned = [each for each in results["runs"] if each["run"]["method"] != FINE_TUNED]
    assert all(len(each["matrix"]) == len(each["matrix"][0]) == 2 for each in learned)
    assert len(results["runs"]) == 3
    assert (whole / "figures" / "matrix-50-percent.svg").read_text().startswith("<?xml")
    assert (whole / "figures" / "forgetting-50-percent.svg").exists()
    page = (whole / "summary.md").read_text()
    assert "| none | ftp+er | 0.001 |" in page
    assert "Unfinished" not in page


def test_lines_are_the_means_of_their_matrices(whole: Path) -> None:
    results = results_of(whole)
    matrix = next(each["matrix"] for each in results["runs"] if each["run"]["method"] == "naive")
    line = results["summary"][0]
    assert line["accuracy"] == pytest.approx((matrix[1][0] + matrix[1][1]) / 2)
    assert line["bwt"] == pytest.approx(matrix[1][0] - matrix[0][0])
    assert line["forgetting"] == pytest.approx(matrix[0][0] - matrix[1][0])


@pytest.mark.long
def test_a_run_that_is_missing_is_made_again_and_no_other(whole: Path, recordings: Path, tmp_path: Path) -> None:
    before, kept = timeless(whole), {path: path.stat().st_mtime_ns for path in (whole / "runs").iterdir()}
    gone = next(path for path in kept if "ftp+er" in path.name)
    gone.unlink()
    assert run(recordings, whole, *QUICK) == 0
    assert timeless(whole) == before
    assert {path for path in kept if path.stat().st_mtime_ns != kept[path]} == {gone}


@pytest.mark.long
def test_results_do_not_depend_on_the_number_of_processes(whole: Path, recordings: Path, tmp_path: Path) -> None:
    assert run(recordings, tmp_path / "out", *QUICK, "--jobs", 2) == 0
    assert timeless(tmp_path / "out") == timeless(whole)


@pytest.mark.long
def test_more_may_be_added_to_a_folder_and_other_settings_may_not(
    whole: Path, recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(recordings, whole, *QUICK, "--methods", "er", "--wrong-labels", "0,0.2", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [(line["method"], line["wrong"]) for line in told["summary"]] == [("er", 0.0), ("er", 0.2)]
    assert all(Path(path).exists() for path in told["files"])
    assert run(recordings, whole, *QUICK, "--label-delay", 6) == 2
    assert "another configuration" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--methods", "ftp+spd"], "ftp and spd exclude each other"),
        (["--methods", ","], "got nothing"),
        (["--label-fraction", "0"], "--label-fraction: expected above 0 to 1"),
        (["--learning-rate", "fast"], "expected numbers"),
        (["--wrong-labels", "1"], "--wrong-labels"),
    ],
)
def test_wrong_use_is_told_in_one_line(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert run(recordings, tmp_path / "out", *QUICK, *arguments) == 2
    error = capsys.readouterr().err.strip()
    assert words in error
    assert "\n" not in error
    assert not (tmp_path / "out").exists()


def test_a_target_is_needed(recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["continual", "--data", str(recordings), "--source", "device=0-3", "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert "--target" in capsys.readouterr().err


def test_a_damaged_run_is_named(whole: Path) -> None:
    run_kept = Run("none", 0, "naive", 0.001, 0.5, 0.0)
    path = next(path for path in (whole / "runs").iterdir() if path.name.startswith("naive"))
    content = path.read_bytes()
    try:
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(ContractError, match="delete it"):
            read_run(whole, run_kept)
    finally:
        path.write_bytes(content)
