"""What is taught for a source and kept beside it: tensors as safetensors, and facts about them as JSON in the header.

sources/seed-0-none.NAME.KIND
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from adaptation.errors import ContractError
from streams.evaluate.folder import replace_file

__all__ = ["keep", "kept_path", "read_all_facts", "read_kept"]


def kept_path(folder: Path, recipe: str, seed: int, name: str, kind: str) -> Path:
    """Return where it is kept."""
    return folder / "sources" / f"seed-{seed}-{re.sub('[^A-Za-z0-9.]+', '-', recipe)}.{name}.{kind}"


def keep(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write it whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {key: value.contiguous() for key, value in tensors.items()}
    replace_file(path, save(content, metadata={"facts": json.dumps(facts)}))


def read_kept(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return facts and tensors.

    Raises:
        ContractError: The file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["facts"])
            return facts, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ContractError(f"{path} is damaged ({error}); delete it and run the evaluation again") from error


def read_all_facts(folder: Path, kind: str, known: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the facts of all of a kind that are kept and have a known name, by name, recipe and seed."""
    facts = [read_kept(path)[0] for path in (folder / "sources").glob(f"*.{kind}")]
    order = list(known)
    found = [each for each in facts if each["name"] in known]
    return sorted(found, key=lambda each: (order.index(each["name"]), each["recipe"] != "none", each["seed"]))
