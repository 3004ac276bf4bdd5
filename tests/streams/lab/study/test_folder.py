"""The folder: whose it is, what it is bound to, and what --force may delete."""

from pathlib import Path

import pytest

from acclimate.adaptation.errors import ConfigError
from acclimate.streams.lab.study.folder import check_binding, open_folder, read_binding

BINDING = {"data": "a.npz", "stride": 1, "selection": {"source": ("device=1",), "label": None}}


def test_a_new_folder_is_made_and_goes_on_with_the_same_binding(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "out"
    for _ in range(2):
        with open_folder(folder, BINDING, force=False):
            (folder / "finished.jsonl").touch()
    assert read_binding(folder)["stride"] == 1
    assert (folder / "finished.jsonl").exists()


def test_another_configuration_is_refused_and_force_deletes_only_results(tmp_path: Path) -> None:
    with open_folder(tmp_path, BINDING, force=False):
        (tmp_path / "finished.jsonl").touch()
        (tmp_path / "sources").mkdir()
        (tmp_path / "notes.txt").write_text("mine")
    changed = {**BINDING, "stride": 5}
    with pytest.raises(ConfigError, match=r"stride: 1 there, 5 now.*--force"), open_folder(tmp_path, changed, False):
        pass
    assert (tmp_path / "finished.jsonl").exists()
    with open_folder(tmp_path, changed, force=True):
        assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "binding.json", "notes.txt"]


def test_a_report_is_bound_as_well(tmp_path: Path) -> None:
    with open_folder(tmp_path, BINDING, force=False):
        pass
    check_binding(tmp_path, BINDING)
    with pytest.raises(ConfigError, match=r"label: null there, \"y\" now"):
        check_binding(tmp_path, {**BINDING, "label": "y"})


def test_foreign_folders_and_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"holds no evaluation.*thesis\.tex"), open_folder(tmp_path, BINDING, True):
        pass
    with (
        pytest.raises(ConfigError, match="is a file"),
        open_folder(tmp_path / "thesis.tex", BINDING, force=True),
    ):
        pass
    with pytest.raises(ConfigError, match="holds no evaluation"):
        read_binding(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_two_runs_never_share_a_folder(tmp_path: Path) -> None:
    with (
        open_folder(tmp_path / "out", BINDING, force=False),
        pytest.raises(ConfigError, match="another evaluation is running"),
        open_folder(tmp_path / "out", BINDING, force=True),
    ):
        pass
