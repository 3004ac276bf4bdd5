"""`acclimate train`: the bundle it leaves, what it prints, and the exit code of each wrong use."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acclimate.adaptation.errors import ConfigError
from acclimate.registry.bundles.source_bundle import read_bundle
from acclimate.streams.cli import main
from acclimate.streams.lab.making.source_model import LeanChoice, check_folder, parse_layers
from acclimate.streams.lab.study.selection import selected_dataset
from tests.adaptation.model.test_train import waves


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    windows, labels, groups = waves(devices=6, each=40)
    device = np.array([int(name[1:]) for name in groups])
    labels[0] = -1
    path = tmp_path_factory.mktemp("recordings") / "waves.npz"
    np.savez(path, X=windows, y=labels, device=device)
    described = {"channels": ["sin", "cos"], "class_names": ["low", "mid", "high"], "sampling_rate": 52}
    described["window"] = {"length": windows.shape[2], "stride": 26}
    path.with_suffix(".json").write_text(json.dumps(described))
    return path


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["train", *map(str, arguments)])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def basics(recordings: Path, out: Path) -> list[object]:
    return [
        "--data",
        recordings,
        "--source",
        "device=0-4",
        "--out",
        out,
        "--epochs",
        1,
        "--threads",
        1,
        "--augment",
        "none",
    ]


def test_the_bundle_names_the_data_and_carries_the_chosen_settings(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lean = ["--tau", 0.25, "--lambda", 2, "--direction", "source_on_large", "--layers", "0,2", "--threshold", 1.5]
    assert run(*basics(recordings, tmp_path / "a/bundle"), "--target", "device=5", *lean, "--json") == 0
    captured = capsys.readouterr()
    summary: dict[str, Any] = json.loads(captured.out)
    assert captured.err == ""
    bundle = read_bundle(tmp_path / "a/bundle")
    assert summary["digest"] == bundle.digest
    assert bundle.manifest.channel_names == ("sin", "cos")
    assert bundle.manifest.class_names == ("low", "mid", "high")
    settings = bundle.settings
    assert (settings.tau, settings.lam, settings.threshold) == (0.25, 2.0, 1.5)
    assert (settings.direction, settings.layers) == ("source_on_large", (True, False, True))
    assert (summary["windows_trained"], summary["windows_left_out"]) == (199, 1)  # the bundle's model: on everything
    assert summary["windows_held_out"] in (39, 40)  # from the measured one; 39: the row without label lies in there
    card = bundle.manifest.training
    assert (card["windows_trained"], card["refitted_on_held_out"]) == (199, True)
    assert (card["augment"], card["augmentation"]) == ("none", "none")
    for said in (vars(bundle.manifest), card, summary):  # from the file beside the recordings
        assert (said["sampling_rate_hz"], said["step_samples"]) == (52.0, 26)
    assert (summary["augmentation"], summary["augmentation_choice"]) == ("none", None)
    assert set(summary["recall"]) == {"low", "mid", "high"}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["bundle"]


def test_equal_seeds_give_equal_digests_and_the_table_shows_digest_and_path(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digests = []
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        assert run(*basics(recordings, tmp_path / name), "--seed", seed, "--sampling-rate-hz", 104) == 0
        captured = capsys.readouterr()
        assert "104 Hz, a window every 26 samples" in captured.out
        assert "held-out accuracy" in captured.out
        assert f"bundle  {tmp_path / name}" in captured.out
        assert captured.err == ""
        digests.append(read_bundle(tmp_path / name).digest)
        assert f"digest  {digests[-1]}" in captured.out
    assert digests[0] == digests[1] != digests[2]


def test_auto_leaves_devices_out_and_the_choice_and_its_figures_are_in_json_card_and_table(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("acclimate.adaptation.model.robust.default_epochs", lambda windows: 1)
    assert run(*basics(recordings, tmp_path / "a"), "--augment", "auto", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    choice = summary["augmentation_choice"]
    assert (choice["judged_by"], choice["weak"], choice["fits"]) == ("groups", False, 15)
    assert {score["condition"] for score in choice["table"]} == {"0", "1", "2", "3", "4"}
    names = {score["candidate"] for score in choice["table"]}
    assert names == {"none", "gain+offset+noise:0.5", "gain+offset+noise:1"}
    card = read_bundle(tmp_path / "a").manifest.training
    assert (card["augment"], card["augmentation"]) == ("auto", summary["augmentation"])
    assert (card["augment_judged_by"], card["augment_evidence_weak"], card["augment_fits"]) == ("groups", False, 15)
    for score in choice["table"]:
        assert card[f"augment_accuracy {score['candidate']} / {score['condition']}"] == score["accuracy"]
    mean = np.mean([score["accuracy"] for score in choice["table"] if score["candidate"] == "none"])
    assert card["augment_accuracy none"] == pytest.approx(mean)

    one = ["--data", recordings, "--source", "device=0", "--channels", "1", "--out", tmp_path / "b", "--epochs", 1]
    assert run(*one) == 0  # auto is the default
    printed = capsys.readouterr().out
    assert "under simulated shift; taken:" in printed
    assert "evidence for this recipe is weak: shifts are simulated" in printed
    assert read_bundle(tmp_path / "b").manifest.training["augment_evidence_weak"] is True


def test_a_list_of_kinds_is_trained_with_and_named_in_the_card(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*basics(recordings, tmp_path / "a"), "--augment", "gain,noise:0.5") == 0
    assert "gain+noise:0.5" in capsys.readouterr().out
    robust = read_bundle(tmp_path / "a")
    assert (robust.manifest.training["augment"], robust.manifest.training["augmentation"]) == (
        "gain,noise:0.5",  # as it was asked for; evaluate separates sources by commas, so + is what is printed
        "gain+noise:0.5",
    )
    assert run(*basics(recordings, tmp_path / "b")) == 0
    assert read_bundle(tmp_path / "b").digest != robust.digest


def test_a_folder_in_use_is_refused_and_force_replaces_bundles_only(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bundle"
    out.mkdir()
    assert run(*basics(recordings, out), "--seed", 1) == 0
    first = read_bundle(out).digest
    assert run(*basics(recordings, out), "--seed", 2) == 2
    assert "is not empty" in capsys.readouterr().err
    assert read_bundle(out).digest == first
    assert run(*basics(recordings, out), "--seed", 2, "--force") == 0
    assert read_bundle(out).digest != first
    (tmp_path / "home").mkdir()
    (tmp_path / "home/letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="--force replaces bundles only"):
        check_folder(tmp_path / "home", force=True)
    with pytest.raises(ConfigError, match="is a file"):
        check_folder(tmp_path / "home/letter.txt", force=True)


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["--label", "truth"], 2, "no array 'truth'; it has: X, device, y"),
        (["--target", "device=9"], 2, "values of 'device': 0-5"),
        (["--source", "device=1"], 2, "names key 'device' twice"),
        (["--channels", "0,x"], 2, "expected numbers such as 0,1,2"),
        (["--tau", "1.5"], 2, "tau: expected 0 to 1"),
        (["--layers", "5"], 2, "BatchNorm layers 0 to 2, got 5"),
        (["--layers", "most"], 2, "expected all, first-half, first or numbers"),
        (["--transform", "sqrt"], 2, "signedlog"),
        (["--target", "device=4-5"], 2, "share 40 rows"),
        (["--augment", "everything"], 2, "--augment: expected none, auto or a list such as gain+noise:0.5"),
        (["--augment", "gain,spikes"], 2, "gain, offset, noise, rotation"),
        (["--augment", "rotation"], 2, "2 channels are none"),
        (["--sampling-rate-hz", "nan"], 2, "--sampling-rate-hz: expected above 0, at most 1e9; got nan"),
        (["--step-samples", "0"], 2, "--step-samples: expected 1 to 2147483648, got 0"),
    ],
)
def test_wrong_options_end_with_one_line_and_exit_code_2(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, text: str
) -> None:
    assert run(*basics(recordings, tmp_path / "bundle"), *options) == code
    captured = capsys.readouterr()
    assert text in captured.err
    assert captured.out == ""
    assert not (tmp_path / "bundle").exists()


def test_rows_without_a_time_axis_have_no_sampling_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.arange(40) % 2
    rows = np.random.default_rng(0).normal(size=(40, 5)) + labels[:, None]
    np.savez(tmp_path / "rows.npz", X=rows, y=labels, device=np.repeat([0, 1], 20))
    (tmp_path / "rows.json").write_text(json.dumps({"sampling_rate": 1}))
    rows_given = ["--data", tmp_path / "rows.npz", "--source", "device=0-1", "--augment", "none", "--epochs", 1]
    for option in ("--sampling-rate-hz", "--step-samples"):
        assert run(*rows_given, "--out", tmp_path / "refused", option, 1) == 2
        assert f"{option} is for windows in time, these are rows without a time axis" in capsys.readouterr().err
    assert run(*rows_given, "--out", tmp_path / "bundle") == 0
    manifest = read_bundle(tmp_path / "bundle").manifest
    assert (manifest.sampling_rate_hz, manifest.training["sampling_rate_hz"]) == (None, None)


def test_wrong_content_ends_with_exit_code_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.npz").write_bytes(b"PK but no zip")
    assert run("--data", tmp_path / "x.npz", "--source", "device=1", "--out", tmp_path / "bundle") == 3
    assert "not an .npz file" in capsys.readouterr().err


def test_repeated_source_options_must_all_hold(recordings: Path) -> None:
    data = selected_dataset(0, data=recordings, source=("device=0-3", "y=0-2"), channels="1")
    assert data.selection["source"] == "device=0-3;y=0-2"
    assert len(data.source) == 159
    assert data.channel_names == ("cos",)


def test_without_data_the_fleet_is_simulated_and_selections_are_refused() -> None:
    with pytest.raises(ConfigError, match="--label selects from recordings"):
        selected_dataset(0, label="y")
    with pytest.raises(ConfigError, match="needs --source"):
        selected_dataset(0, data=Path("x.npz"))
    fleet = selected_dataset(5)
    assert fleet.selection["seed"] == "5"
    assert fleet.target is not None


def test_layers_are_read_in_all_forms() -> None:
    assert parse_layers("all", 3) == (True, True, True)
    assert parse_layers("first-half", 4) == (True, True, False, False)
    assert parse_layers("1-2", 3) == (False, True, True)
    assert LeanChoice(tau=0.0).settings(2).tau == 0.0


def test_force_does_not_remove_a_folder_that_holds_more_than_a_bundle(tmp_path: Path) -> None:
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"thesis\.tex"):
        check_folder(folder, force=True)
    assert (folder / "thesis.tex").exists()
