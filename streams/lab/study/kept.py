"""What is taught for a source and kept beside it (`streams.lab.making.facts_file`).

sources/seed-0-none.NAME.KIND
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streams.lab.making.facts_file import read_facts_file

__all__ = ["kept_path", "read_all_facts"]


def kept_path(folder: Path, recipe: str, seed: int, name: str, kind: str) -> Path:
    """Return where it is kept."""
    return folder / "sources" / f"seed-{seed}-{re.sub('[^A-Za-z0-9.]+', '-', recipe)}.{name}.{kind}"


def read_all_facts(folder: Path, kind: str, known: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the facts of all of a kind that are kept and have a known name, by name, recipe and seed."""
    facts = [read_facts_file(path)[0] for path in (folder / "sources").glob(f"*.{kind}")]
    order = list(known)
    found = [each for each in facts if each["name"] in known]
    return sorted(found, key=lambda each: (order.index(each["name"]), each["recipe"] != "none", each["seed"]))
