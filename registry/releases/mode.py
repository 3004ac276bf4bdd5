"""The mode of a set of bundles: who answers the devices that get it."""

from typing import Literal

from acclimate.adaptation.errors import ContractError

__all__ = ["MODES_SERVED", "Mode", "served_mode"]

Mode = Literal["observe", "always", "gated"]
# Releases have a name for ``gated`` already; no version serves it yet.
MODES_SERVED: tuple[Mode, ...] = ("observe", "always")


def served_mode(name: str, what: str) -> Mode:
    """Return the mode with this name.

    Args:
        name: An open name: releases of newer versions may say one that this version does not know.
        what: The statement that says it, for the message.

    Raises:
        ContractError: This version does not serve the mode.
    """
    for mode in MODES_SERVED:
        if mode == name:
            return mode
    raise ContractError(f"{what}: expected mode {' or '.join(MODES_SERVED)}, found {name[:200]!r}; update acclimate")
