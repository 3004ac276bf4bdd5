"""`acclimate pilot`: what it leaves a worker accepts, opens without network, and leans on no target label."""

import json
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acclimate.adaptation.errors import ConfigError, DataError
from acclimate.infra.settings import PREFIX, load_settings
from acclimate.registry.bundles.source_bundle import read_bundle
from acclimate.streams.cli import main
from acclimate.streams.lab.pilot import files, study
from acclimate.streams.lab.pilot.conclusions import Report
from acclimate.streams.lab.pilot.files import check_out
from acclimate.streams.lab.pilot.jobs import Job, MakeSource, words
from acclimate.streams.lab.pilot.options import PilotOptions, complete_costs
from acclimate.streams.lab.pilot.page import render_page
from acclimate.streams.lab.study.jobs import ChooseRecipe
from acclimate.streams.lab.study.processes import Failure
from tests.adaptation.model.test_train import waves

HOSTILE = "<script>alert(1)</script>&$x_1$\n"
RUNGS = ["leantta", "cum-bn", "t3a", "policy"]

pytestmark = pytest.mark.xdist_group("pilot")  # what is made once for all tests is made by one process


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    windows, labels, groups = waves(devices=7, each=40)
    device = np.array([int(name[1:]) for name in groups])
    windows[device == 6] = (windows[device == 6] - 100) * 3 + 110  # far away, for the gate to see
    path = tmp_path_factory.mktemp("pilot") / "waves.npz"
    np.savez(path, X=windows, y=labels, none=np.where(device < 5, labels, 0), device=device)
    path.with_suffix(".json").write_text(
        json.dumps({"class_names": ["low", "mid", "high"], "channels": ["sin", "cos"]})
    )
    return path


@pytest.fixture(scope="module", autouse=True)
def short_trainings() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        for module in (
            "acclimate.adaptation.model.robust",
            "acclimate.adaptation.methods.policy_calibration",
            "acclimate.streams.lab.pilot.work",
        ):
            patch.setattr(f"{module}.default_epochs", lambda windows: 1)
        yield


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["pilot", *map(str, arguments)])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def basics(recordings: Path, out: Path) -> list[object]:
    selection = ["--data", recordings, "--source", "device=0-4", "--target", "device=5-6"]
    return [*selection, "--epochs", 1, "--jobs", 0, "--out", out]


@pytest.fixture(scope="module")
def rendered() -> list[Report]:
    """Hold the report whose page `out` wrote."""
    return []


@pytest.fixture(scope="module")
def out(recordings: Path, rendered: list[Report], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "a pilot"
    options = [*basics(recordings, folder), "--augment", "auto", "--error-cost", 0.5, "--devices", 10]
    with pytest.MonkeyPatch.context() as patch:

        def keep(report: Report) -> str:
            rendered.append(report)
            return render_page(report)

        patch.setattr(files, "render_page", keep)
        assert run(*options) == 0
    return folder


@pytest.fixture(scope="module")
def report(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "pilot.json").read_text(), parse_constant=pytest.fail)
    return found


def test_the_workers_settings_loader_accepts_the_file_and_the_bundle_it_names_loads(
    out: Path, report: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = 'set -a; . "$1"; set +a; env'  # as the page tells; the folder's name has a space
    printed = subprocess.run(
        ["sh", "-c", script, "sh", out / "acclimate.env"], capture_output=True, text=True, check=True
    )
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    given = dict(line.split("=", 1) for line in printed.stdout.splitlines() if line.startswith(PREFIX))
    assert set(given) == {"ACCLIMATE_BUNDLE", "ACCLIMATE_MODE"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.mode == report["mode"]
    assert settings.bundle == out.resolve() / "bundle"
    bundle = read_bundle(settings.bundle)
    bundle.engine()
    assert bundle.digest == report["sources"][report["recipe"]]["digest"]
    assert bundle.manifest.training["augmentation"] == report["recipe"]


def test_only_the_four_promised_things_are_left(out: Path) -> None:
    assert {path.name for path in out.iterdir()} == {"pilot.html", "pilot.json", "acclimate.env", "bundle"}
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_the_page_needs_no_network_and_shows_every_device_and_rung(out: Path, report: dict[str, Any]) -> None:
    page = (out / "pilot.html").read_text()
    assert "default-src 'none'" in page
    assert not re.search(r"(src|href)=\"(?!#)", page)
    assert not re.search(r"https?://|@import|<script|<link", page)
    assert page.count("<svg") == 4
    assert not re.search(r">\s*(nan|None|inf)\b", page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for heading in ("Which shifts occur", "thresholds follow", "rung gains", "time and memory", "per year", "go wrong"):
        assert heading in page
    for name in ("5", "6"):
        assert f"<tr><th>{name}</th>" in page
    assert f"<b>{report['mode']}</b>" in page


def test_gains_are_paired_with_the_source_and_costs_are_measured(report: dict[str, Any]) -> None:
    assert [device["device"] for device in report["devices"]] == ["5", "6"]
    for device in report["devices"]:
        for name in RUNGS:
            score = device["scores"][name]
            assert score["change"] == pytest.approx(score["accuracy"] - score["source_accuracy"])
            assert score["low"] <= score["change"] <= score["high"]
            assert score["source_accuracy"] == device["scores"]["robust"]["accuracy"]
    for name in ["source", *RUNGS]:
        assert report["cost"][name]["seconds_per_window"] > 0
    assert report["cost"]["source"]["state_bytes"] == report["cost"]["leantta"]["state_bytes"] == 0
    assert report["cost"]["cum-bn"]["state_bytes"] > 0
    # every source device was left out once, by every rung that runs there
    assert {score["device"] for score in report["expected_devices"]["leantta"]} == {"0", "1", "2", "3", "4"}
    assert report["expected_by"] == "left-out source devices"


def test_a_device_that_was_turned_up_is_farther_than_one_that_was_not(report: dict[str, Any]) -> None:
    near, far = report["devices"]
    assert far["shift"]["median"] > 2 * near["shift"]["median"]
    assert far["gate"]["largest"] > 1 > near["gate"]["last"] / far["gate"]["last"]
    assert far["levels"][0]["spread"] == pytest.approx(3, rel=0.2)
    assert report["thresholds"]["devices_outside"][-1] == "6"


def test_a_year_is_what_the_options_and_the_measurements_make_it(report: dict[str, Any]) -> None:
    costs = report["costs"]
    assert costs["windows_per_year"] == 365 * 10 * costs["windows_per_day"]
    assert costs["assumed"] == ["--label-cost", "--cpu-hour-cost", "--windows-per-day"]
    year = next(year for year in report["years"] if year["rung"] == "cum-bn")
    extra = report["cost"]["cum-bn"]["seconds_per_window"] - report["cost"]["source"]["seconds_per_window"]
    expected = costs["windows_per_year"] * (
        report["measured"]["cum-bn"]["mean"] * 0.5 - extra / 3600 * costs["cpu_hour"]
    )
    assert year["net"][0] == pytest.approx(expected)


def test_without_target_labels_nothing_depends_on_them_and_ranges_are_expected(
    recordings: Path, report: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*basics(recordings, tmp_path / "p"), "--label", "none", "--no-target-labels", "--json"]
    assert run(*options, "--augment", report["recipe"]) == 0
    captured = capsys.readouterr()
    unlabelled = json.loads(captured.out)
    assert unlabelled == json.loads((tmp_path / "p/pilot.json").read_text())
    assert "done: following device 6" in captured.err
    assert unlabelled["measured"] is None
    assert all(device["scores"] is None for device in unlabelled["devices"])
    assert {year["by"] for year in unlabelled["years"]} == {"expected"}
    for name in ("expected", "expected_devices", "policy", "recipe"):
        assert unlabelled[name] == report[name]
    for mine, other in zip(unlabelled["devices"], report["devices"], strict=True):
        assert (mine["shift"], mine["gate"]) == (other["shift"], other["gate"])
    assert any("Nothing was measured against the truth" in risk["text"] for risk in unlabelled["risks"])


def test_a_source_of_one_device_is_judged_by_simulation_and_starts_with_observe(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = ["--data", recordings, "--source", "device=0", "--target", "device=6", "--epochs", 1, "--jobs", 0]
    assert run(*one, "--augment", "none", "--out", tmp_path / "q") == 0
    assert "calibration is weak" in capsys.readouterr().out
    found = json.loads((tmp_path / "q/pilot.json").read_text())
    assert (found["mode"], found["expected_by"], found["policy"]["weak"]) == ("observe", "simulated shifts", True)
    assert "ACCLIMATE_MODE=observe\n" in (tmp_path / "q/acclimate.env").read_text()


def test_rows_without_a_time_axis_and_a_device_of_one_window_are_piloted_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1], 63)
    device = np.append(np.repeat(np.arange(6), 21)[:125], 6)
    rows = rng.normal(size=(126, 3)).astype(np.float32) + labels[:, None]
    np.savez(tmp_path / "rows.npz", X=rows, y=labels, device=device)
    selection = ["--data", tmp_path / "rows.npz", "--source", "device=0-4", "--target", "device=5-6"]
    assert run(*selection, "--epochs", 1, "--jobs", 0, "--augment", "none", "--out", tmp_path / "p") == 0
    found = json.loads((tmp_path / "p/pilot.json").read_text(), parse_constant=pytest.fail)
    assert found["cost"]["leantta"] is None
    assert (found["mode"], found["devices"][1]["windows"]) == ("observe", 1)
    assert found["devices"][1]["scores"]["cum-bn"]["harmed"] is None  # one window decides nothing
    assert "does not apply to these windows" in (tmp_path / "p/pilot.html").read_text()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--augment", "everything"], "--augment: expected none, auto or a list"),
        (["--error-cost", "-1"], "error: expected a number from 0"),
        (["--windows-per-day", "nan"], "windows_per_day: expected a number"),
        (["--devices", "0"], "at least one device"),
        (["--label", "truth"], "no array 'truth'"),
    ],
)
def test_wrong_options_end_with_one_line_and_leave_nothing(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], text: str
) -> None:
    assert run(*basics(recordings, tmp_path / "p"), *options) == 2
    captured = capsys.readouterr()
    assert text in captured.err
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_target_is_needed(recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--data", recordings, "--source", "device=0-4", "--out", tmp_path / "p") == 2
    assert "add --target" in capsys.readouterr().err


def test_an_interrupted_pilot_ends_with_130_and_leaves_nothing(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_options: object, _dataset: object, folder: Path, _progress: object) -> None:
        (folder / "source-plain").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr("acclimate.streams.lab.pilot.study.run_study", interrupted)
    assert run(*basics(recordings, tmp_path / "p")) == 130
    assert list(tmp_path.iterdir()) == []


def test_force_replaces_a_pilot_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "pilot.html").write_text("old")
    with pytest.raises(ConfigError, match="is not empty"):
        check_out(tmp_path, force=False)
    check_out(tmp_path, force=True)
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"thesis\.tex"):
        check_out(tmp_path, force=True)
    with pytest.raises(ConfigError, match="is a file"):
        check_out(tmp_path / "thesis.tex", force=True)


@pytest.mark.usefixtures("out")
def test_hostile_names_are_escaped_everywhere(rendered: list[Report]) -> None:
    report = rendered[0]
    first, *others = report.devices
    level, *levels = first.levels
    hostile = replace(first, device=HOSTILE, levels=(replace(level, channel=HOSTILE), *levels))
    own, *owned = report.source_devices
    report = replace(
        report,
        data=HOSTILE,
        classes=(HOSTILE,),
        command=HOSTILE,
        selection={HOSTILE: HOSTILE},
        devices=(hostile, *others),
        source_devices=(replace(own, device=HOSTILE), *owned),
    )
    text = render_page(report)
    assert "<script" not in text
    assert "alert(1)" in text


def test_prices_follow_from_the_recording_where_it_tells(recordings: Path) -> None:
    from acclimate.streams.lab.pilot.work import load_data

    dataset = load_data(PilotOptions({"data": recordings, "source": ("device=0-4",), "target": ("device=5-6",)}))
    assert complete_costs(dataset).windows_per_day == 1440  # no sampling rate is known: one window a minute
    assert complete_costs(dataset).devices == 2
    object.__setattr__(dataset, "sampling_rate_hz", 32.0)
    assert complete_costs(dataset).windows_per_day == 86_400 * 32 / 16


def test_progress_of_worker_processes_arrives_and_their_errors_keep_their_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[Job] = [ChooseRecipe(), MakeSource("none")]
    outcome: list[Any] = [7, 8]

    def fake(jobs: Any, _make: Any, arguments: Any, _workers: int) -> Any:
        arguments[2](str(jobs[0]), 1, 3)
        yield from zip(jobs, outcome, strict=True)

    monkeypatch.setattr(study, "run_jobs", fake)
    seen: list[tuple[str, int, int]] = []
    stages = study._Stages(PilotOptions({}, jobs=2), tmp_path, lambda *message: seen.append(message))
    assert stages.run(jobs) == {jobs[0]: 7, jobs[1]: 8}
    assert seen == [(str(jobs[0]), 1, 3), (words(jobs[0]), 0, 0), (words(jobs[1]), 0, 0)]
    outcome[0] = Failure("DataError", "diverged", "trace")
    with pytest.raises(DataError, match="choosing how to train: diverged"):
        stages.run(jobs)
    outcome[0] = Failure("ZeroDivisionError", "0", "the trace")
    with pytest.raises(RuntimeError, match="the trace"):
        stages.run(jobs)
