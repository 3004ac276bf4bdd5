"""Keys of a fleet on disk: private, never overwritten, replaced and revoked by the root alone."""

import stat
from pathlib import Path

import pytest

from acclimate.adaptation.errors import ConfigError
from acclimate.registry.trust.envelope import public_hex
from acclimate.registry.trust.key_folder import TRUST_FILE, add_key, init_keys, read_trust_file, revoke_key, rotate_key
from acclimate.registry.trust.keys import new_key_file, read_key
from acclimate.registry.trust.trust import Trust, newer_trust

NOW, DAY = 1_800_000_000_000, 24 * 3600 * 1000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    init_keys(tmp_path / "keys", "plant", ("ann", "bob"), 2, None, NOW)
    return tmp_path / "keys"


def trust_of(folder: Path) -> Trust:
    return read_trust_file(folder / TRUST_FILE)[1]


def test_each_key_is_its_owners_alone_and_the_list_holds_no_secret(folder: Path):
    private = sorted(folder.glob("*.pem"))
    assert [path.name for path in private] == [
        "agent.pem", "approver-ann.pem", "approver-bob.pem", "gate.pem", "release.pem", "root.pem",
    ]  # fmt: skip
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    text = (folder / TRUST_FILE).read_text()
    for path in private:
        assert read_key(path, None).private_bytes_raw().hex() not in text
        assert path.read_text().splitlines()[1] not in text


def test_the_list_names_the_keys_that_were_made(folder: Path):
    trust = trust_of(folder)
    assert {(k.role, k.owner): k.public_key for k in trust.keys} == {
        ("release", "controller"): public_hex(read_key(folder / "release.pem", None)),
        ("gate", "gate"): public_hex(read_key(folder / "gate.pem", None)),
        ("agent", "agent"): public_hex(read_key(folder / "agent.pem", None)),
        ("approver", "ann"): public_hex(read_key(folder / "approver-ann.pem", None)),
        ("approver", "bob"): public_hex(read_key(folder / "approver-bob.pem", None)),
    }
    assert trust.root == (public_hex(read_key(folder / "root.pem", None)),)


def test_no_key_is_ever_overwritten(folder: Path):
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ConfigError, match="are there already"):
        init_keys(folder, "plant", (), 0, None, NOW)
    (folder / TRUST_FILE).unlink()
    with pytest.raises(ConfigError, match="never overwritten"):
        init_keys(folder, "plant", (), 0, None, NOW)
    assert {path: path.read_bytes() for path in folder.iterdir()} == {
        path: content for path, content in before.items() if path.name != TRUST_FILE
    }


def test_approvals_that_nobody_could_give_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="2 approvals need as many approvers, found 1"):
        init_keys(tmp_path, "plant", ("ann", "ann"), 2, None, NOW)


def test_a_rotation_is_believed_by_who_knew_the_list_before_and_ends_the_old_key(folder: Path):
    before, _ = read_trust_file(folder / TRUST_FILE)
    path = rotate_key(folder, folder / "root.pem", "release", None, 3 * DAY, None, NOW + 1)
    after, trust = read_trust_file(folder / TRUST_FILE)
    assert newer_trust(before, after) == after
    fresh = public_hex(read_key(path, None))
    old = public_hex(read_key(folder / "release.pem", None))
    good = {at: set(trust.keys_of("release", at).values()) for at in (NOW, NOW + 1, NOW + 1 + 3 * DAY, NOW + 4 * DAY)}
    assert list(good.values()) == [{old}, {old, fresh}, {old, fresh}, {fresh}]


def test_a_role_with_several_owners_wants_one_named(folder: Path):
    with pytest.raises(ConfigError, match=r"\['ann', 'bob'\]"):
        rotate_key(folder, folder / "root.pem", "approver", None, DAY, None, NOW)
    assert rotate_key(folder, folder / "root.pem", "approver", "bob", DAY, None, NOW).name == "approver-bob-2.pem"
    assert add_key(folder, folder / "root.pem", "approver", "carl", None, NOW).name == "approver-carl-3.pem"
    with pytest.raises(ConfigError, match="has a key"):
        add_key(folder, folder / "root.pem", "approver", "carl", None, NOW)
    assert trust_of(folder).version == 3


def test_a_revoked_key_is_out_at_once(folder: Path):
    key = next(key for key in trust_of(folder).keys if key.owner == "bob")
    assert revoke_key(folder, folder / "root.pem", key.key_id[:8], None) == key
    trust = trust_of(folder)
    assert key not in trust.keys
    assert trust.revoked == (key.key_id,)
    for unknown in ("", "zz", key.key_id):
        with pytest.raises(ConfigError, match="expected the id of one key"):
            revoke_key(folder, folder / "root.pem", unknown, None)


def test_only_the_root_changes_the_list_and_a_wrong_one_leaves_no_key_behind(folder: Path):
    before = sorted(path.name for path in folder.iterdir())
    for wrong in ("gate.pem", "release.pem"):
        with pytest.raises(ConfigError, match="not the root key"):
            rotate_key(folder, folder / wrong, "release", None, DAY, None, NOW)
        with pytest.raises(ConfigError, match="not the root key"):
            revoke_key(folder, folder / wrong, trust_of(folder).keys[0].key_id, None)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_key_with_a_passphrase_needs_it_and_one_that_others_may_read_is_refused(tmp_path: Path):
    made = new_key_file(tmp_path / "a.pem", "correct horse")
    assert read_key(tmp_path / "a.pem", "correct horse").private_bytes_raw() == made.private_bytes_raw()
    for wrong in (None, "wrong horse"):
        with pytest.raises(ConfigError, match="ACCLIMATE_KEY_PASSPHRASE") as refused:
            read_key(tmp_path / "a.pem", wrong)
        assert "horse" not in str(refused.value)
    new_key_file(tmp_path / "b.pem", None)
    (tmp_path / "b.pem").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_key(tmp_path / "b.pem", None)
    (tmp_path / "c.pem").write_text("no key")
    (tmp_path / "c.pem").chmod(0o600)
    for path in (tmp_path / "c.pem", tmp_path / "none.pem"):
        with pytest.raises(ConfigError, match="expected a"):
            read_key(path, None)
