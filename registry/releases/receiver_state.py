"""The memory that a receiver keeps in one file: whom to believe, the newest epoch, and what is installed.

It is replaced in one step and flushed to the disk before anything is used that depends on it, so that after a kill or a
power cut at any point the receiver is where it was before or after, and never takes an older release.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from acclimate.adaptation.errors import ContractError
from acclimate.registry.canonical import Digest, Extensible, canonical_text, read_canonical
from acclimate.registry.folder import replace_file
from acclimate.registry.trust.envelope import Envelope

__all__ = ["STATE_FILE", "ReceiverState", "read_state", "write_state"]

STATE_FILE = "receiver.json"
_MAX_STATE_BYTES = 4 * 2**20


class ReceiverState(Extensible):
    """Remembered by a receiver.

    Attributes:
        trust: The statement of whom to believe, as it was signed.
        epoch, release_sha256: The newest release that was accepted.
        installed: The release that is in use, as signed; an accepted one whose artifacts are bad never comes here.
        checksum: SHA-256 of the rest; finds damage, proves no origin.
    """

    schema_version: Literal[1] = 1
    trust: Envelope
    epoch: Annotated[int, Field(ge=0)] = 0
    release_sha256: Digest | None = None
    installed: Envelope | None = None
    checksum: Digest = "0" * 64


def read_state(folder: Path) -> ReceiverState | None:
    """Return what is remembered in a folder; None in a new one.

    Raises:
        ContractError: The file is damaged. Starting anew would take releases that are older than what was accepted, so
            a person has to say so, by removing it.
    """
    path = folder / STATE_FILE
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_STATE_BYTES + 1)
    except FileNotFoundError:
        return None
    try:
        state, values = read_canonical(ReceiverState, raw, str(path))
        if _checksum(values) != state.checksum:
            raise ContractError(f"{path}: expected checksum {_checksum(values)}, found {state.checksum}")
    except ContractError as error:
        raise ContractError(
            f"{error}; the file is damaged. Remove it to start anew from the trust file: older releases would then be "
            "taken again"
        ) from error
    return state


def write_state(folder: Path, state: ReceiverState) -> None:
    """Replace what is remembered; durable when this returns."""
    values = state.model_dump(mode="json")
    replace_file(folder / STATE_FILE, canonical_text(values | {"checksum": _checksum(values)}))


def _checksum(values: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_text(values | {"checksum": "0" * 64})).hexdigest()
