"""The settings of a learner: a way of learning is a sum of parts, such as ``ftp+er``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from acclimate.adaptation.errors import ConfigError

__all__ = ["FTP_OPTIONS", "PARTS", "LearnerSettings", "parse_method"]

FTP_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "ftp": {},
    "ftp-warm": {"warm_start": True},
    "ftp-relative": {"warm_start": True, "relative_step": True, "mu": 0.1},
}
PARTS = ("naive", *FTP_OPTIONS, "spd", "tpgm", "l2sp", "ewc", "lwf", "er", "iwms", "agem", "adapters")
_AT_MOST_ONE = (("naive", *FTP_OPTIONS, "spd", "tpgm"), ("er", "iwms", "agem"))


@dataclass(frozen=True)
class LearnerSettings:
    """The settings of a learner.

    Args:
        method: Parts joined by ``+``, such as ``ftp+er``; see `PARTS`.
        learning_rate: The learning rate of AdamW, above 0.
        steps: The steps of each update, at least 1.
        batch: Windows of a step, at least 2.
        least: Labels that an update waits for, at least 1.
        recent: Labels that came last and may be in a batch, at least 1.
        memory: Windows of devices remembered by ``er``, ``iwms`` and ``agem``, at least 1; the source's do not count.
        strength: The strength of ``l2sp``, ``ewc`` and ``lwf``, each 0 or more; raising it holds closer.

    Raises:
        ConfigError: A value is out of range, a part is unknown, or two parts exclude each other.
    """

    method: str = "ftp+er+adapters+lwf"
    learning_rate: float = 1e-3
    steps: int = 20
    batch: int = 64
    least: int = 8
    recent: int = 128
    memory: int = 1024
    strength: Mapping[str, float] = field(default_factory=lambda: {"l2sp": 0.1, "ewc": 100.0, "lwf": 4.0})

    def __post_init__(self) -> None:
        parse_method(self.method)
        if not self.learning_rate > 0:
            raise ConfigError(f"learning rate: expected above 0, got {self.learning_rate}")
        for name, least in (("steps", 1), ("batch", 2), ("least", 1), ("recent", 1), ("memory", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: expected at least {least}, got {getattr(self, name)}")


def parse_method(text: str) -> frozenset[str]:
    """Return the parts of a way of learning.

    Raises:
        ConfigError: A part is unknown, or two exclude each other.

    >>> sorted(parse_method("ftp+er"))
    ['er', 'ftp']
    """
    parts = text.split("+")
    unknown = [part for part in parts if part not in PARTS]
    if unknown or len(set(parts)) < len(parts):
        raise ConfigError(f"method: expected some of {', '.join(PARTS)}, each once, joined by +, got {text!r}")
    for group in _AT_MOST_ONE:
        chosen = [part for part in parts if part in group]
        if len(chosen) > 1:
            raise ConfigError(f"method: {' and '.join(chosen)} exclude each other, got {text!r}")
    return frozenset(parts)
