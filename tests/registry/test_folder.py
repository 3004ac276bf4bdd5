"""Files that are there whole or not at all."""

from pathlib import Path

import pytest

from acclimate.registry.folder import replace_file


def test_a_file_is_replaced_whole_and_nothing_stays_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    for content in (b"one", b"two"):
        replace_file(path, content)
        assert path.read_bytes() == content
    (tmp_path / ".summary.md.new").mkdir()  # a write that fails
    with pytest.raises(IsADirectoryError):
        replace_file(path, b"three")
    assert path.read_bytes() == b"two"
