"""The options of a comparison, and the part of them that a folder of results is bound to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from acclimate.adaptation.continual.settings import LearnerSettings, parse_method
from acclimate.adaptation.errors import ConfigError
from acclimate.streams.lab.study.folder import data_binding
from acclimate.streams.lab.study.recipes import PLAIN

__all__ = ["FINE_TUNED", "ContinualOptions", "binding", "parse_methods", "parse_shares"]

FINE_TUNED = "fine-tuned"  # taught on all labels of each group alone, from the source: the most that labels are worth


@dataclass(frozen=True)
class ContinualOptions:
    """Options of one comparison.

    Attributes:
        selection: The data options by name, as `acclimate.streams.lab.study.selection.selected_dataset` takes them.
        methods: Ways of learning, as `acclimate.adaptation.continual.learner.parse_method` reads them.
        learning_rates: The learning rates that each method is run with.
        label_fractions: The shares of windows that get a label, above 0 to 1.
        wrong: The shares of labels that are wrong, 0 to below 1.
        delay: The number of windows of a group between a window and its label.
        seeds: The number of seeds: 0, 1, 2, ...
        augment: The kinds of source, as for evaluations.
        memory: The number of windows remembered.
        steps: The steps of each update.
        jobs: The number of worker processes.
    """

    selection: Mapping[str, Any]
    methods: tuple[str, ...]
    learning_rates: tuple[float, ...] = (1e-3,)
    label_fractions: tuple[float, ...] = (0.05,)
    wrong: tuple[float, ...] = (0.0,)
    delay: int = 200
    seeds: int = 3
    augment: tuple[str, ...] = (PLAIN,)
    memory: int = 1024
    steps: int = 20
    jobs: int = 1

    def settings(self, method: str, learning_rate: float) -> LearnerSettings:
        """Return how a method learns."""
        return LearnerSettings(method, learning_rate, steps=self.steps, memory=self.memory)


def binding(options: ContinualOptions) -> dict[str, Any]:
    """Return everything that a folder's results depend on; all else may be added to it.

    Raises:
        ConfigError: The file of recordings cannot be read.
    """
    return {
        "kind": "continual",
        **data_binding(options.selection),
        "delay": options.delay,
        "memory": options.memory,
        "steps": options.steps,
    }


def parse_methods(text: str) -> tuple[str, ...]:
    """Read ways of learning separated by commas.

    Raises:
        ConfigError: There is none, or one cannot be.

    >>> parse_methods("naive, ftp+er,naive")
    ('naive', 'ftp+er')
    """
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise ConfigError("--methods: expected names such as naive,er,ftp+er, got nothing")
    for name in names:
        parse_method(name)
    return names


def parse_shares(option: str, text: str, low: float, high: float) -> tuple[float, ...]:
    """Read numbers separated by commas, each above ``low`` (0 itself is allowed where ``low`` is below) to ``high``.

    Raises:
        ConfigError: One is not.

    >>> parse_shares("--label-fraction", "0.05,0.2", 0, 1)
    (0.05, 0.2)
    """
    try:
        numbers = tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError as error:
        raise ConfigError(f"{option}: expected numbers such as 0.05,0.2, got {text!r}") from error
    for number in numbers:
        if not low < number <= high:
            raise ConfigError(f"{option}: expected above {low:g} to {high:g}, got {number:g}")
    return numbers
