"""Keep the state of a long training beside the folder that it will fill, so that a kill does not undo it.

``OUT.checkpoint`` is written whole or not at all, and bound to everything that the result depends on: the same command
goes on from it, another is refused.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from acclimate.adaptation.data.dataset import Split
from acclimate.adaptation.errors import ConfigError
from acclimate.streams.lab.making.facts_file import read_facts_file, write_facts_file

__all__ = ["checkpoint_path", "keep_checkpoint", "read_checkpoint", "recordings_digest"]


def checkpoint_path(folder: Path) -> Path:
    """Return where the training of a bundle keeps its state.

    >>> str(checkpoint_path(Path("out/mgg")))
    'out/mgg.checkpoint'
    """
    return folder.with_name(f"{folder.name}.checkpoint")


def recordings_digest(split: Split) -> str:
    """Return the SHA-256 of windows, labels and groups, in hex."""
    digest = hashlib.sha256()
    for values in (split.windows, split.labels, split.groups):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def keep_checkpoint(path: Path, state: Mapping[str, Tensor], binding: Mapping[str, Any], seconds: float) -> None:
    """Write a state.

    Args:
        path: The file that `checkpoint_path` names.
        state: The state of the training.
        binding: Everything that its result depends on, as JSON gives it back.
        seconds: The time that the training has taken so far, over all its starts.
    """
    write_facts_file(path, state, {"binding": binding, "seconds": seconds})


def read_checkpoint(path: Path, binding: Mapping[str, Any], force: bool) -> tuple[dict[str, Tensor] | None, float]:
    """Return the state to go on from and the seconds that it took; None and 0 where there is none.

    Args:
        path: The file that `checkpoint_path` names.
        binding: Everything that the result depends on.
        force: Begin anew where the checkpoint of another training lies; it is overwritten later, as every process
            reads it and none may remove it.

    Raises:
        ConfigError: It is the checkpoint of another training.
        ContractError: It is damaged.
    """
    if not path.exists():
        return None, 0.0
    facts, state = read_facts_file(path)
    if facts["binding"] == binding:
        return state, float(facts["seconds"])
    if force:
        return None, 0.0
    differing = [name for name, value in binding.items() if facts["binding"].get(name) != value]
    raise ConfigError(
        f"{path} is the checkpoint of another training (other {', '.join(differing)}); --force begins anew, or choose "
        "another --out"
    )
