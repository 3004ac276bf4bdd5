"""The options of an evaluation, and the part of them that a folder of results is bound to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from acclimate.adaptation.errors import ConfigError
from acclimate.streams.lab.study.folder import data_binding
from acclimate.streams.lab.study.recipes import PLAIN

__all__ = ["EvaluationOptions", "binding", "parse_choice", "parse_numbers"]


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of one evaluation.

    Attributes:
        selection: The data options by name, as `acclimate.streams.lab.study.selection.selected_dataset` takes them.
        methods: Names in the catalogue; the source comes first and is always there, for it is what all are paired with.
        streams: Some of `acclimate.adaptation.evaluation.streams.STREAMS`.
        batch_sizes: Windows per call, each at least 1.
        seeds: The number of seeds, 0 and up, for source training, orders, corruptions and methods.
        augment: Kinds of source: ``none``, ``auto``, or recipes; ``none`` comes first and is always prepared.
        severity: The severity of all corrupted streams; None keeps each stream's own.
        stride: The distance from one window of a group to the next that is used; 1 uses all.
        epochs: The passes of source training; None is the default.
        jobs: The number of worker processes.
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
        """The kinds of source in every table; the plain one is always there."""
        return tuple(dict.fromkeys((PLAIN, *self.augment)))


def binding(options: EvaluationOptions) -> dict[str, Any]:
    """Return everything that a folder's results depend on.

    Methods, streams, batch sizes, seeds and sources may be added to a folder.

    Raises:
        ConfigError: The file of recordings cannot be read.
    """
    return {
        **data_binding(options.selection),
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
