"""``acclimate keys`` as whoever sets up a fleet would use it."""

import json
from pathlib import Path

import pytest

from acclimate.streams.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["keys", *arguments])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_a_fleet_gets_its_keys_and_changes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = ("--folder", str(tmp_path / "keys"))
    code, out, _ = run(capsys, "init", *folder, "--fleet", "plant", "--approver", "ann", "--approvals", "1")
    assert code == 0
    assert "fleet plant, version 1, 1 approvals needed" in out
    assert "off-line" in out
    assert run(capsys, "rotate", "release", *folder, "--window", "2")[0] == 0
    assert run(capsys, "add", "approver", *folder, "--owner", "bob")[0] == 0
    listed = json.loads(run(capsys, "list", *folder, "--json")[1])
    assert [(k["role"], k["owner"]) for k in listed["keys"]] == [
        ("release", "controller"), ("gate", "gate"), ("agent", "agent"), ("approver", "ann"),
        ("release", "controller"), ("approver", "bob"),
    ]  # fmt: skip
    ann = listed["keys"][3]["key_id"]
    assert "Revoked" in run(capsys, "revoke", ann[:10], *folder)[1]
    assert json.loads(run(capsys, "list", *folder, "--json")[1])["revoked"] == [ann]


@pytest.mark.parametrize("name", ["../ann", "a/b", "", "ann.pem"])
def test_an_approver_whose_name_makes_no_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str):
    code, _, err = run(capsys, "init", "--folder", str(tmp_path / "keys"), "--approver", name)
    assert code == 2
    assert "it names a file" in err
    assert not (tmp_path / "keys").exists()


def test_without_keys_the_error_says_how_to_make_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    code, _, err = run(capsys, "list", "--folder", str(tmp_path))
    assert code == 2
    assert "acclimate keys init" in err
