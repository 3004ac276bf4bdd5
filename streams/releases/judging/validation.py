"""Validation sets as the gates need them: labelled windows that fit a model and are new to it."""

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from acclimate.adaptation.data.corruptions import applicable, centre_and_scale, corrupt
from acclimate.adaptation.data.dataset import Split
from acclimate.adaptation.data.load import load_labelled
from acclimate.adaptation.data.selectors import parse_integers
from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.evaluation.streams import every
from acclimate.registry.bundles.manifest import Card
from acclimate.registry.bundles.source_bundle import Bundle
from acclimate.registry.gates.rules import ShiftRules, ValidationSet

__all__ = ["LoadedSet", "load_set", "shifted_sets"]


@dataclass(frozen=True, eq=False)
class LoadedSet:
    """A validation set: its name, the SHA-256 of its file, and the selected windows."""

    name: str
    sha256: str
    split: Split


def load_set(wanted: ValidationSet, source: Bundle, cards: Sequence[Card]) -> LoadedSet:
    """Load a validation set for a model; what is not said of label, groups, channels and order, its card says.

    Args:
        wanted: Which.
        source: Takes the windows.
        cards: What manifests remember of trainings, the candidate's own first; their rows must not be in the set.

    Raises:
        ConfigError: It does not fit the model, or shares rows with what the model was trained on.
        DataError: The file's content is wrong.
    """
    path = Path(wanted.path)

    def told(key: str, card: Card = cards[0]) -> str:
        return str(card.get(f"selection_{key}") or "")

    label = wanted.label or told("label") or "y"
    channels = wanted.channels if wanted.channels is not None else _integers(told("channels")) or None
    # The same machine seen by another sensor is another recording.
    trained = [
        told("source", card)
        for card in cards
        if path.stem == card.get("data") and told("channels", card) == ",".join(map(str, channels or ()))
    ]
    split = load_labelled(
        path,
        where=wanted.where or None,
        label=label,
        group=wanted.group or told("group") or None,
        channels=channels,
        order=wanted.order if wanted.order is not None else tuple(n for n in told("order").split(",") if n),
        apart_from=trained,
    )
    shape, spec = split.windows.shape[1:], source.spec
    if shape != (spec.channels, spec.length):
        raise ConfigError(
            f"validation set {wanted.name}: windows of {shape[0]} x {shape[1]}, the model takes {spec.channels} x "
            f"{spec.length}; choose channels"
        )
    if split.labels.max() >= spec.classes:
        raise ConfigError(
            f"validation set {wanted.name}: {label} is {split.labels.max()}, the model knows classes 0 to "
            f"{spec.classes - 1}; choose another label or other rows"
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return LoadedSet(wanted.name, digest, split)


def shifted_sets(loaded: LoadedSet, rules: ShiftRules) -> list[LoadedSet]:
    """Return the set under each simulated fault that makes sense for its windows, every device with its own draw.

    Sizes of faults count in the standard deviations of the set itself.
    """
    split = every(loaded.split, -(-len(loaded.split) // rules.windows_max))
    centre, scale = centre_and_scale(split.windows)
    found = []
    for kind in rules.kinds:
        if not applicable(kind, *split.windows.shape[1:]):
            continue
        for severity in rules.severities:
            windows = np.concatenate(
                [
                    corrupt(split.windows[part], kind, severity, scale, zlib.crc32(name.encode()), centre=centre)
                    for name, part in split.streams()
                ]
            )
            changed = Split(windows, split.labels, split.groups, split.rows, split.dropped)
            found.append(LoadedSet(f"{loaded.name} {kind} {severity:g}", loaded.sha256, changed))
    return found


def _integers(text: str) -> tuple[int, ...]:
    return tuple(parse_integers(text)) if text else ()
