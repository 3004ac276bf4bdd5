"""The state of a long training beside its folder: read back exactly, and never taken for another's."""

from pathlib import Path

import pytest
import torch

from acclimate.adaptation.errors import ConfigError, ContractError
from acclimate.streams.lab.making.checkpoint import checkpoint_path, keep_checkpoint, read_checkpoint

BOUND = {"seed": 0, "settings": {"width": 4}}
SHARED = torch.arange(6.0).reshape(2, 3).T
STATE = {"weights": SHARED, "best": SHARED, "epoch": torch.tensor(3)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = checkpoint_path(tmp_path / "new" / "bundle")
    keep_checkpoint(found, STATE, BOUND, 12.5)
    return found


def test_a_state_is_read_back_with_the_time_it_took(path: Path) -> None:
    state, seconds = read_checkpoint(path, BOUND, force=False)
    assert seconds == 12.5
    assert state is not None
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[name], value) for name, value in STATE.items())


def test_without_a_checkpoint_there_is_nothing_to_go_on_from(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path / "none.checkpoint", BOUND, force=False) == (None, 0.0)


def test_the_checkpoint_of_another_training_is_refused_by_name_unless_forced(path: Path) -> None:
    other = {**BOUND, "seed": 1}
    with pytest.raises(ConfigError, match="other seed"):
        read_checkpoint(path, other, force=False)
    assert read_checkpoint(path, other, force=True) == (None, 0.0)
    assert path.exists()  # another process may not have looked yet


@pytest.mark.parametrize("content", [b"", b"\x10\x00\x00\x00\x00\x00\x00\x00{}", b"not a tensor file at all"])
def test_a_damaged_checkpoint_is_named_and_not_read(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ContractError, match="damaged"):
        read_checkpoint(path, BOUND, force=True)
