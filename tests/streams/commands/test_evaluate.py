"""`acclimate evaluate`, end to end on a small recording: what it writes, resuming, adding, and each wrong use."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acclimate.adaptation.errors import ConfigError, ContractError, NotAdaptable
from acclimate.adaptation.generators import meta_train
from acclimate.adaptation.methods import catalogue
from acclimate.adaptation.methods.policy_settings import PolicySettings, RungScore
from acclimate.adaptation.model.nets import Classifier, to_tensors
from acclimate.streams.cli import main
from acclimate.streams.lab.evaluate.options import EvaluationOptions, parse_choice
from acclimate.streams.lab.evaluate.recordings import load_data
from acclimate.streams.lab.evaluate.task_runner import unpack_bits
from acclimate.streams.lab.evaluate.tasks import read_finished
from acclimate.streams.lab.study.choices import policy_path, read_policy
from acclimate.streams.lab.study.prepare import load_source, prepare_source, save_source
from acclimate.streams.lab.study.processes import WorkerDied
from acclimate.streams.lab.study.taught import GENERATORS

pytestmark = pytest.mark.xdist_group("evaluate")  # what is made once for all tests is made by one process


def run(recordings: Path, out: Path, *arguments: object) -> int:
    basics = ["--data", recordings, "--source", "device=0-3", "--target", "device=4-5", "--epochs", 1, "--out", out]
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", *map(str, basics), "--jobs", "0", *map(str, arguments)])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


QUICK = ["--methods", "tent", "--seeds", 1, "--augment", "none", "--batch-sizes", 8]


@pytest.fixture(scope="module")
def whole(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    options = ["--methods", "tent", "--seeds", 2, "--augment", "gain+offset:0.5", "--batch-sizes", "8"]
    assert run(recordings, out, *options, "--streams", "ordered,shuffled,mixed,gradual,recurring", "--json") == 0
    return out


def rows_of(out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((out / "results.json").read_text())["rows"]
    return rows


def timeless(out: Path) -> list[dict[str, Any]]:
    measured = {"seconds_per_window", "peak_memory_bytes", "working_memory_bytes"}
    return [{name: value for name, value in row.items() if name not in measured} for row in rows_of(out)]


def test_every_combination_has_a_row_with_all_that_was_promised(whole: Path) -> None:
    rows = rows_of(whole)
    # 5 streams x 2 seeds x 2 groups x (source and tent on the robust source, source alone on the plain one)
    assert len(rows) == 5 * 2 * 2 * 3
    keys = {
        *("method", "stream", "batch_size", "seed", "group", "source_kind", "accuracy", "macro_f1", "nll", "ece", "n"),
        *("worst_class_recall", "seconds_per_window", "peak_memory_bytes", "resets", "collapsed", "state_policy"),
        *("corruption", "severity", "change", "change_low", "change_high", "harmed", "gain"),
        *("block", "blocks", "label_run", "adapted_share"),
    }
    assert all(row.keys() >= keys for row in rows)
    assert {row["source_kind"] for row in rows} == {"plain", "robust"}
    assert {(row["method"], row["source_kind"]) for row in rows} == {
        ("source", "plain"),
        ("source", "robust"),
        ("tent", "robust"),
    }


def test_rows_agree_with_each_other(whole: Path) -> None:
    rows = rows_of(whole)
    index = {
        (row["augment"], row["method"], row["stream"], row["batch_size"], row["seed"], row["group"]): row
        for row in rows
    }
    for row in rows:
        where = (row["stream"], row["batch_size"], row["seed"], row["group"])
        own, plain = index[(row["augment"], "source", *where)], index[("none", "source", *where)]
        assert row["n"] == own["n"]
        assert row["change"] == pytest.approx(row["accuracy"] - own["accuracy"], abs=1e-12)
        assert row["gain"] == pytest.approx(row["accuracy"] - plain["accuracy"], abs=1e-12)
        assert row["harmed"] is (row["change_high"] < 0)
        assert row["blocks"] == 8  # of five windows, shorter than a run of one class: never fewer blocks than this
        assert row["block"] == 5 < row["label_run"]
        assert row["change_low"] <= row["change_high"]
        assert (row["corruption"] is not None) == (row["stream"] in ("gradual", "recurring"))
        assert (row["returned_accuracy"] is not None) == (row["stream"] == "recurring")
        assert row["corruption"] == plain["corruption"]
        assert (
            row["state_policy"]
            == {
                "source": "none",
                "tent": "shared by all groups" if row["stream"] == "mixed" else "per group",
            }[row["method"]]
        )
    # One source per seed: batch size and order of arrival change nothing for it.
    for seed in (0, 1):
        accuracies = {
            row["accuracy"]
            for row in rows
            if row["method"] == "source" and row["augment"] == "none" and row["seed"] == seed and row["group"] == "4"
            if row["stream"] in ("ordered", "shuffled", "mixed")
        }
        assert len(accuracies) == 1


def test_the_stored_bits_are_the_accuracy(whole: Path) -> None:
    finished, _ = read_finished(whole / "finished.jsonl")
    for result in finished.values():
        for entry in result["groups"]:
            assert unpack_bits(entry).mean() == pytest.approx(entry["accuracy"])


def test_a_reordered_stream_is_judged_in_the_order_of_its_recording(whole: Path) -> None:
    # The source answers a window the same wherever it stands, so that every order must lead to the same interval.
    finished, _ = read_finished(whole / "finished.jsonl")
    sources = [(task, result) for task, result in finished.items() if task.method == "source"]
    for seed, recipe in ((0, "none"), (1, "gain+offset:0.5")):
        found = {
            (task.stream, entry["group"]): entry
            for task, result in sources
            if (task.seed, task.source) == (seed, recipe)
            for entry in result["groups"]
        }
        for group in ("4", "5"):
            ordered = found["ordered", group]
            assert np.array_equal(unpack_bits(ordered), unpack_bits(ordered, "recorded"))
            for stream in ("shuffled", "mixed"):
                assert np.array_equal(unpack_bits(found[stream, group], "recorded"), unpack_bits(ordered))
                assert found[stream, group]["block"] == ordered["block"]
    intervals: dict[Any, set[Any]] = {}
    for row in rows_of(whole):
        if row["method"] == "source" and row["stream"] in ("ordered", "shuffled", "mixed"):
            where = (row["augment"], row["seed"], row["group"])
            intervals.setdefault(where, set()).add((row["gain_low"], row["gain"], row["gain_high"]))
    assert all(len(different) == 1 for different in intervals.values())


def test_rows_of_other_windows_or_another_model_are_never_paired(
    recordings: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--methods", "tent", "--seeds", 2, "--augment", "gain+offset:0.5", "--batch-sizes", 8, "--report-only"]
    text = (whole / "finished.jsonl").read_text()
    line = next(line for line in text.splitlines() if '"method":"tent"' in line and '"stream":"ordered"' in line)
    for name, part, told in (
        ("data", json.loads(line)["groups"][0], "was streamed other windows than the source"),
        ("model", json.loads(line), "came from another model"),
    ):
        out = tmp_path / name
        shutil.copytree(whole, out)
        changed = line.replace(f'"{name}":"{part[name]}"', f'"{name}":"000000000000"')
        (out / "finished.jsonl").write_text(text.replace(line, changed))
        before = (out / "summary.md").read_bytes()
        assert run(recordings, out, *options, "--streams", "ordered") == 3
        captured = capsys.readouterr()
        assert told in captured.err
        assert "--again source,tent" in captured.err
        assert (out / "summary.md").read_bytes() == before


def test_a_report_alone_is_bound_to_its_folder_too(
    recordings: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    options = ["--methods", "tent", "--seeds", 2, "--augment", "gain+offset:0.5", "--batch-sizes", 8]
    (out / "summary.md").unlink()
    assert run(recordings, out, *options, "--streams", "ordered", "--report-only") == 0
    assert (out / "summary.md").exists()
    assert not list(out.rglob("*.new"))
    capsys.readouterr()
    (out / "summary.md").unlink()
    assert run(recordings, out, *options, "--streams", "ordered", "--report-only", "--stride", 2) == 2
    assert "another configuration (stride: 1 there, 2 now)" in capsys.readouterr().err
    assert not (out / "summary.md").exists()


def test_again_forgets_what_this_command_asks_for_and_nothing_else(
    recordings: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    before, _ = read_finished(out / "finished.jsonl")
    options = ["--augment", "gain+offset:0.5", "--batch-sizes", 8, "--streams", "ordered", "--seeds", 1]
    assert run(recordings, out, "--methods", "source", *options, "--again", "tent") == 2
    assert "--again: expected all or some of source; got 'tent'" in capsys.readouterr().err
    assert read_finished(out / "finished.jsonl")[0] == before
    assert run(recordings, out, "--methods", "tent", *options, "--again", "tent") == 0
    after, _ = read_finished(out / "finished.jsonl")
    assert after.keys() == before.keys()
    made = [task for task in after if list(after).index(task) >= len(before) - 2]  # written again, at the end
    assert {(task.method, task.stream, task.seed) for task in made} == {("tent", "ordered", 0)}


@pytest.mark.long
def test_what_another_state_of_the_code_made_is_told(recordings: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    options = ["--methods", "tent", "--seeds", 2, "--augment", "gain+offset:0.5", "--batch-sizes", 8]
    assert "earlier state of the code" not in (out / "summary.md").read_text()
    path = out / "sources" / "seed-1-none.json"
    content = json.loads(path.read_text())
    content["facts"]["code"] = "0" * 12
    path.write_text(json.dumps(content))
    assert run(recordings, out, *options, "--streams", "ordered", "--report-only") == 0
    told = "Made by an earlier state of the code and reused as they are: source none, seed 1."
    assert told in (out / "summary.md").read_text()
    assert json.loads((out / "results.json").read_text())["outdated"] == ["source none, seed 1"]


def test_the_summary_and_the_plots_are_there(whole: Path) -> None:
    summary = (whole / "summary.md").read_text()
    for text in ("## ordered, batch 8 (2 groups, 2 seeds)", "## By corruption and severity", "harmed", "acclimate"):
        assert text in summary
    assert "Quick look" not in summary
    figures = {path.name for path in (whole / "figures").iterdir()}
    assert {"accuracy-ordered-8.svg", "gain-mixed-8.svg", "harm-gradual-8.svg"} <= figures
    assert len(figures) == 3 * 5
    assert b"<svg" in (whole / "figures" / "accuracy-ordered-8.svg").read_bytes()


def test_an_interrupted_run_goes_on_and_repeats_nothing(recordings: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(recordings, out, *QUICK, "--streams", "ordered") == 0
    path = out / "finished.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    rows = timeless(out)
    model = (out / "sources" / "seed-0-none.safetensors").stat().st_mtime_ns
    path.write_bytes(b"".join(lines[:2]) + lines[2][:25])  # as a kill leaves it
    assert run(recordings, out, *QUICK, "--streams", "ordered") == 0
    assert path.read_bytes().startswith(b"".join(lines[:2]))
    assert len(path.read_bytes().splitlines()) == len(lines) == 4
    assert (out / "sources" / "seed-0-none.safetensors").stat().st_mtime_ns == model
    assert timeless(out) == rows
    # More may be added, and one method's results may be made again.
    assert run(recordings, out, *QUICK, "--streams", "ordered,sparse") == 0
    assert len(path.read_bytes().splitlines()) == 8
    assert run(recordings, out, *QUICK, "--streams", "ordered,sparse", "--again", "tent") == 0
    assert path.read_bytes().startswith(b"".join(lines[:2]))
    assert len(path.read_bytes().splitlines()) == 8


def test_another_configuration_is_refused_and_a_quick_look_says_so(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(recordings, out, *QUICK, "--streams", "ordered", "--stride", 2) == 0
    assert "every 2th window only" in capsys.readouterr().out
    assert "Quick look: only every 2th window" in (out / "summary.md").read_text()
    assert json.loads((out / "results.json").read_text())["about"]["stride"] == 2
    assert run(recordings, out, *QUICK, "--streams", "ordered") == 2
    assert "holds results of another configuration (stride: 2 there, 1 now)" in capsys.readouterr().err
    assert run(recordings, out, *QUICK, "--streams", "ordered", "--force", "--json") == 0
    assert json.loads(capsys.readouterr().out)["about"]["stride"] == 1


def test_a_method_that_fails_does_not_take_the_others_along(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make = catalogue.make_method

    def broken(name: str, *given: Any) -> Any:
        if name == "tent":
            raise ArithmeticError("no step")
        return make(name, *given)

    with monkeypatch.context() as patched:
        patched.setattr("acclimate.streams.lab.evaluate.task_runner.make_method", broken)
        assert run(recordings, tmp_path, *QUICK, "--streams", "ordered") == 70  # a bug, no wrong option
    captured = capsys.readouterr()
    assert "error: 2 tasks failed" in captured.err
    assert "failed: tent, ordered, batch 8, group 4, seed 0, source none: ArithmeticError: no step" in captured.err
    assert {row["method"] for row in rows_of(tmp_path)} == {"source"}
    assert "Unfinished: 2 of" in (tmp_path / "summary.md").read_text()
    assert run(recordings, tmp_path, *QUICK, "--streams", "ordered") == 0
    assert {row["method"] for row in rows_of(tmp_path)} == {"source", "tent"}


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (NotAdaptable("nothing to adapt here"), 0, "`tent` cannot adapt this network: nothing to adapt here."),
        (ConfigError("a setting is wrong"), 3, "**2 tasks failed"),  # never taken for a finding
    ],
)
def test_only_a_network_without_anything_to_adapt_is_a_finding(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, told: str
) -> None:
    make = catalogue.make_method

    def broken(name: str, *given: Any) -> Any:
        if name == "tent":
            raise error
        return make(name, *given)

    monkeypatch.setattr("acclimate.streams.lab.evaluate.task_runner.make_method", broken)
    assert run(recordings, tmp_path, *QUICK, "--streams", "ordered") == code
    assert told in (tmp_path / "summary.md").read_text()


def test_a_dead_worker_ends_with_75_and_one_line(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_arguments: Any, **_options: Any) -> None:
        raise WorkerDied("a worker process ended")

    monkeypatch.setattr("acclimate.streams.lab.evaluate.evaluation.run_evaluation", die)
    assert run(recordings, tmp_path, *QUICK) == 75
    assert capsys.readouterr().err == "error: a worker process ended\n"


def test_auto_shows_its_choice_and_shares_the_plain_source_where_it_chose_none(
    recordings: Path, tmp_path: Path
) -> None:
    options = ["--methods", "tent", "--seeds", 1, "--augment", "none,auto", "--batch-sizes", 8, "--streams", "ordered"]
    assert run(recordings, tmp_path, *options) == 0
    choice = json.loads((tmp_path / "sources" / "choice.json").read_text())
    rows = rows_of(tmp_path)
    assert {row["augment"] for row in rows} == {"none", "auto"}
    assert {row["recipe"] for row in rows if row["augment"] == "auto"} == {choice["recipe"]}
    assert f"chose {choice['recipe']}" in (tmp_path / "summary.md").read_text()
    finished, _ = read_finished(tmp_path / "finished.jsonl")
    assert len(finished) == (4 if choice["recipe"] == "none" else 8)


@pytest.mark.long
def test_worker_processes_give_the_same_as_this_one(recordings: Path, tmp_path: Path) -> None:
    options = [*QUICK, "--streams", "gradual"]
    assert run(recordings, tmp_path / "0", *options) == 0
    shutil.copytree(tmp_path / "0", tmp_path / "2")
    (tmp_path / "2" / "finished.jsonl").unlink()
    assert run(recordings, tmp_path / "2", *options, "--jobs", 2) == 0
    assert timeless(tmp_path / "0") == timeless(tmp_path / "2")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--methods", "tend"], "--methods: expected all, ablations, cta-ablations or some of source,"),
        (["--streams", "sorted"], "--streams: expected all or some of ordered,"),
        (["--batch-sizes", "0"], "numbers from 1"),
        (["--augment", "blur"], "--augment: expected none, auto or"),
        (["--severity", "7"], "--severity: expected above 0 to 5, got 7"),
        (["--report-only"], "holds no evaluation"),
        (["--label", "truth"], "no array 'truth'"),
    ],
)
def test_wrong_options_end_with_one_line_and_leave_nothing_behind(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], text: str
) -> None:
    out = tmp_path / "out"
    assert run(recordings, out, *QUICK, "--streams", "ordered", *options) == 2
    captured = capsys.readouterr()
    assert text in captured.err
    assert len(re.findall(r"^error:", captured.err, re.MULTILINE)) == 1
    assert captured.out == ""
    assert not out.exists()


def test_without_a_target_there_is_nothing_to_evaluate(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", "--data", str(recordings), "--source", "device=0-3", "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert "add --target" in capsys.readouterr().err


def test_the_sample_that_methods_may_see_is_balanced(recordings: Path, tmp_path: Path) -> None:
    selection = {"data": recordings, "source": ("device=0-3",), "target": ("device=4-5",)}
    dataset = load_data(EvaluationOptions(selection, ("source",))).source
    assert dataset.target is None  # nothing that makes a source can see it
    prepared = prepare_source(dataset, "gain:0.5", 3, epochs=1)
    save_source(tmp_path, prepared)
    loaded = load_source(tmp_path, dataset, "gain:0.5", 3)
    assert loaded.facts == prepared.facts
    models = (prepared.context.model, loaded.context.model)
    one, two = (to_tensors(model) for model in models if isinstance(model, Classifier))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    counts = np.bincount(loaded.context.labels.numpy())
    assert counts.max() - counts.min() <= len(dataset.source) // 3
    assert loaded.context.seed == 3
    assert np.isin(loaded.context.windows[:, 0, 0].numpy(), dataset.source.windows[:, 0, 0]).all()


def test_what_the_policy_may_do_is_found_out_once_per_source_and_forgotten_on_request(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tuple(
        RungScore(name, "statistics", 0.5, after, 1.0, (0.9,) * 5) for name, after in (("0", 0.25), ("1", 0.375))
    )
    settings = PolicySettings("statistics", True, 0.5, 0.25, 256.0, weak=False, table=table)
    asked = []

    def calibrate(*arguments: Any) -> PolicySettings:
        asked.append(arguments)
        return settings

    monkeypatch.setattr("acclimate.streams.lab.study.choices.calibrate_policy", calibrate)
    options = ["--methods", "policy", "--seeds", 1, "--augment", "none", "--batch-sizes", 8, "--streams", "ordered"]
    for _ in range(2):
        assert run(recordings, tmp_path, *options) == 0
    assert len(asked) == 1
    assert read_policy(tmp_path, "none", 0) == settings
    summary = (tmp_path / "summary.md").read_text()
    told = (
        "`policy` for source none, seed 0: `statistics` through its gate; without a gate it gained -18.8 points in the "
        "mean on 2 source devices left out of training, **a loss: only the gate holds it back**."
    )
    assert told in summary
    shares = {row["method"]: row["adapted_share"] for row in rows_of(tmp_path)}
    assert shares["source"] is None
    assert 0.0 <= shares["policy"] < 1.0  # the first period is always the source's
    assert run(recordings, tmp_path, *options, "--again", "policy") == 0
    assert len(asked) == 2
    kept = policy_path(tmp_path, "none", 0)
    kept.write_text(kept.read_text().replace('"gated"', '"fenced"'))
    with pytest.raises(ContractError, match="another state of the code; --again policy"):
        read_policy(tmp_path, "none", 0)


@pytest.mark.long
def test_generators_are_taught_once_kept_shown_and_taught_again_on_demand(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meta_train, "default_updates", lambda settings: 2)
    options = ["--seeds", 1, "--augment", "none", "--batch-sizes", 16, "--streams", "ordered"]
    names = ["--methods", "mgg,generalizeformer"]
    assert run(recordings, tmp_path / "out", *options, *names) == 0
    kept = {name: GENERATORS.path(tmp_path / "out", "none", 0, name) for name in ("mgg", "generalizeformer")}
    first = {name: path.read_bytes() for name, path in kept.items()}
    rows = rows_of(tmp_path / "out")
    assert {row["method"] for row in rows} == {"source", "mgg", "generalizeformer"}
    assert all(row["adapted_share"] is not None for row in rows if row["method"] != "source")
    summary = (tmp_path / "out" / "summary.md").read_text()
    assert re.search(r"\| mgg( \(no help\))? \| none \| 0 \| \d", summary)
    assert run(recordings, tmp_path / "out", *options, *names) == 0  # nothing left to do
    assert {name: path.read_bytes() for name, path in kept.items()} == first
    times = {name: path.stat().st_mtime_ns for name, path in kept.items()}
    assert run(recordings, tmp_path / "out", *options, *names, "--again", "mgg") == 0
    again = {name: path.stat().st_mtime_ns for name, path in kept.items()}
    assert again["mgg"] > times["mgg"]
    assert again["generalizeformer"] == times["generalizeformer"]


def test_a_damaged_generator_and_one_of_other_settings_are_named(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(meta_train, "default_updates", lambda settings: 2)
    options = ["--seeds", 1, "--augment", "none", "--batch-sizes", 16, "--streams", "ordered", "--methods", "mgg"]
    assert run(recordings, tmp_path / "out", *options) == 0
    path = GENERATORS.path(tmp_path / "out", "none", 0, "mgg")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'\\"alpha\\": 0.03', b'\\"alpha\\": 0.02'))
    assert path.read_bytes() != whole
    with pytest.raises(ContractError, match="--again mgg makes it anew"):
        GENERATORS.read(tmp_path / "out", "none", 0)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ContractError, match="damaged"):
        GENERATORS.read(tmp_path / "out", "none", 0)


def test_all_leaves_the_ablations_to_those_who_ask_for_them() -> None:
    usual = tuple(name for name in catalogue.METHODS if name not in catalogue.ABLATIONS)
    meanings = {"all": usual, "ablations": catalogue.ABLATIONS}
    known = tuple(catalogue.METHODS)
    assert parse_choice("--methods", "all", known, meanings) == usual
    assert "mgg" in usual
    assert "mgg-no-memory" not in usual
    assert set(parse_choice("--methods", "all,ablations", known, meanings)) == set(known)


@pytest.mark.long
def test_encoders_are_aligned_once_and_shared_by_the_methods_that_use_them(recordings: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--seeds", 1, "--augment", "none", "--batch-sizes", 64, "--streams", "ordered"]
    assert run(recordings, out, "--methods", "cta,cta-frozen,rec-ttt", *options) == 0
    assert {path.name for path in (out / "sources").glob("*.alignment")} == {
        "seed-0-none.cta.alignment",
        "seed-0-none.rec-ttt.alignment",
    }
    kept = {path: path.stat().st_mtime_ns for path in (out / "sources").glob("*.alignment")}
    before = timeless(out)
    assert run(recordings, out, "--methods", "cta,cta-frozen,rec-ttt", *options, "--again", "cta") == 0
    assert timeless(out) == before
    again = {path.name for path, time in kept.items() if path.stat().st_mtime_ns != time}
    assert again == {"seed-0-none.cta.alignment"}
    assert "aligned encoder" in (out / "summary.md").read_text()
