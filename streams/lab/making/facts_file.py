"""Keep tensors and facts about them in one file: safetensors, with the facts as JSON in its header."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from acclimate.adaptation.errors import ContractError
from acclimate.registry.folder import replace_file

__all__ = ["read_facts_file", "write_facts_file"]


def write_facts_file(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write both, whole or not at all; the folder is created."""
    # Clones, for two names may be one tensor.
    content = {name: value.cpu().contiguous().clone() for name, value in tensors.items()}
    replace_file(path, save(content, metadata={"facts": json.dumps(facts)}))


def read_facts_file(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return facts and tensors.

    Raises:
        ContractError: The file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["facts"])
            return facts, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ContractError(f"{path} is damaged ({error}); delete it and give the same command again") from error
