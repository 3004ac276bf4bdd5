"""What is evaluated, and which part of it a folder of results is bound to."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptation.data.augment import parse_augmentation
from adaptation.errors import ConfigError

__all__ = [
    "PLAIN",
    "SIMULATION_SEED",
    "EvaluationOptions",
    "binding",
    "file_sha256",
    "parse_choice",
    "parse_numbers",
    "parse_sources",
]

PLAIN = "none"  # the source as it is always trained: shown beside every other
SIMULATION_SEED = 0


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of one evaluation.

    Attributes:
        selection: Data options by name, as `streams.lab.study.selection.selected_dataset` takes them.
        methods: Names in the catalogue; the source comes first and is always there, for it is what all are paired with.
        streams: Some of `adaptation.evaluation.streams.STREAMS`.
        batch_sizes: Windows per call, each at least 1.
        seeds: How many seeds, 0 and up: of source training, orders, corruptions and methods.
        augment: Kinds of source: ``none``, ``auto``, or recipes; ``none`` comes first and is always prepared.
        severity: Instead of every corrupted stream's own; None keeps those.
        stride: Every how many-th window of each group is used.
        epochs: Of source training; None is the default.
        jobs: Worker processes.
    """

    selection: Mapping[str, Any]
    methods: tuple[str, ...]
    streams: tuple[str, ...] = ("ordered",)
    batch_sizes: tuple[int, ...] = (1, 64)
    seeds: int = 3
    augment: tuple[str, ...] = (PLAIN, "auto")
    severity: float | None = None
    stride: int = 1
    epochs: int | None = None
    jobs: int = 1

    @property
    def shown(self) -> tuple[str, ...]:
        """Kinds of source in every table: the plain one is always there."""
        return tuple(dict.fromkeys((PLAIN, *self.augment)))


def binding(options: EvaluationOptions) -> dict[str, Any]:
    """Return what every result of a folder depends on; methods, streams, batch sizes, seeds and sources may be added.

    Raises:
        ConfigError: The file of recordings cannot be read.
    """
    selection = {name: value for name, value in options.selection.items() if name != "data"}
    data = options.selection.get("data")
    return {
        "data": Path(data).name if data is not None else f"simulated fleet, seed {SIMULATION_SEED}",
        "data_sha256": file_sha256(Path(data)) if data is not None else None,
        "selection": {name: list(value) if isinstance(value, tuple) else value for name, value in selection.items()},
        "severity": options.severity,
        "stride": options.stride,
        "epochs": options.epochs,
    }


def parse_choice(
    option: str, text: str, known: Sequence[str], meanings: Mapping[str, Sequence[str]] | None = None
) -> tuple[str, ...]:
    """Read names separated by commas, or ``all``; ``meanings`` are other names for several at once.

    Raises:
        ConfigError: A name is unknown, or there is none.

    >>> parse_choice("--streams", "shuffled,ordered,ordered", ("ordered", "mixed", "shuffled"))
    ('shuffled', 'ordered')
    """
    several = {"all": known, **(meanings or {})}
    parts = [part.strip() for part in text.split(",") if part.strip()]
    names = tuple(dict.fromkeys(name for part in parts for name in several.get(part, (part,))))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        what = repr(unknown[0]) if unknown else "nothing"
        raise ConfigError(f"{option}: expected {', '.join(several)} or some of {', '.join(known)}; got {what}")
    return names


def parse_numbers(option: str, text: str) -> tuple[int, ...]:
    """Read whole numbers from 1 up, separated by commas.

    Raises:
        ConfigError: One is not.

    >>> parse_numbers("--batch-sizes", "1, 8,64")
    (1, 8, 64)
    """
    try:
        numbers = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError as error:
        raise ConfigError(f"{option}: expected numbers such as 1,8,64, got {text!r}") from error
    if min(numbers) < 1:
        raise ConfigError(f"{option}: expected numbers from 1, got {min(numbers)}")
    return numbers


def parse_sources(text: str) -> tuple[str, ...]:
    """Read kinds of source separated by commas: ``none``, ``auto``, or recipes with ``+`` between their kinds.

    Raises:
        ConfigError: A recipe cannot be read.

    >>> parse_sources("none,auto"), parse_sources("gain+noise:0.5")
    (('none', 'auto'), ('gain+noise:0.5',))
    """
    sources = []
    for part in text.split(","):
        name = part.strip()
        if name not in (PLAIN, "auto"):
            try:
                name = str(parse_augmentation(name))
            except ConfigError as error:
                raise ConfigError(
                    f"--augment: expected none, auto or KIND+KIND:STRENGTH, separated by commas: {error}"
                ) from error
        sources.append(name)
    return tuple(dict.fromkeys(sources))


def file_sha256(path: Path) -> str:
    """Return the SHA-256 (hex) of a file of recordings.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; expected an .npz file of recordings") from error
