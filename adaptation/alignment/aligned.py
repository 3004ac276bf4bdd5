"""The result of alignment: a second encoder, its projector, and a head that reads it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from acclimate.adaptation.errors import ConfigError

__all__ = ["VARIANTS", "Aligned", "AlignmentSettings", "as_tensors", "parts_of", "project"]

_PARTS = ("encoder", "head", "projector")


@dataclass(frozen=True)
class AlignmentSettings:
    """The settings by which the second encoder is taught.

    Args:
        task: The task (`tasks.Task`): ``contrastive``, ``masked`` or ``cross``.
        joint: Whether encoder and head learn the task and the labels at once, which is the Y-shaped network of plain
            test-time training, instead of stages 1 to 3.
        aligned: Whether stage 2 takes place; without, the encoder is self-supervised alone.
        class_masked: Whether the alignment leaves windows of one class out of each other's negatives.
        ssl_temperature: tau_u, above 0.
        temperature: tau_a, above 0.
        width: The width of the projections, d, at least 1.
        ssl_weight: The weight of the task beside alignment or labels, 0 or more; at 0 the encoder forgets the task.

    Raises:
        ConfigError: A value is out of range.
    """

    task: Literal["contrastive", "masked", "cross"] = "contrastive"
    joint: bool = False
    aligned: bool = True
    class_masked: bool = True
    ssl_temperature: float = 0.2
    temperature: float = 0.1
    width: int = 64
    ssl_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.task not in ("contrastive", "masked", "cross"):
            raise ConfigError(f"task: expected contrastive, masked or cross, got {self.task!r}")
        if not self.ssl_temperature > 0 or not self.temperature > 0:
            raise ConfigError(f"temperatures: expected above 0, got {self.ssl_temperature}, {self.temperature}")
        if self.width < 1 or not self.ssl_weight >= 0:
            raise ConfigError(f"width, ssl_weight: expected at least 1 and 0, got {self.width}, {self.ssl_weight}")


VARIANTS: Mapping[str, AlignmentSettings] = {
    "cta": AlignmentSettings(),
    "cta-unmasked": AlignmentSettings(class_masked=False),
    "cta-no-alignment": AlignmentSettings(aligned=False),
    "cta-masked": AlignmentSettings(task="masked"),
    "ttt-y": AlignmentSettings(joint=True),
    "rec-ttt": AlignmentSettings(task="cross", joint=True),
}


@dataclass(frozen=True, eq=False)
class Aligned:
    """An aligned encoder; frozen, as all that is loaded from a bundle.

    Attributes:
        settings: The settings that it was taught with.
        encoder: f_u: all tensors of the source's network but the head's, by their names there.
        head: h': ``weight`` (K, F) and ``bias`` (K,), refitted on the encoder's features.
        projector: p: ``0.weight`` (F, F), ``0.bias``, ``2.weight`` (d, F), ``2.bias``, with ReLU between; d is what the
            task asks for.
        unsafe: The kinds of `views.VIEWS` that the task forbids.
        ssl_mean, ssl_std: The mean and deviation of the task's loss over batches of source windows.
        matched, mismatched: The mean cosine of both encoders' features of one window, and of two.
    """

    settings: AlignmentSettings
    encoder: Mapping[str, Tensor]
    head: Mapping[str, Tensor]
    projector: Mapping[str, Tensor]
    unsafe: tuple[str, ...]
    ssl_mean: float
    ssl_std: float
    matched: float
    mismatched: float


def as_tensors(aligned: Aligned) -> dict[str, Tensor]:
    """Return all of its tensors in one mapping: ``encoder/NAME``, ``head/NAME`` and ``projector/NAME``."""
    return {f"{part}/{name}": value for part in _PARTS for name, value in getattr(aligned, part).items()}


def parts_of(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], ...]:
    """Return encoder, head and projector of `as_tensors`."""
    return tuple(
        {name.removeprefix(f"{part}/"): value for name, value in tensors.items() if name.startswith(f"{part}/")}
        for part in _PARTS
    )


def project(projector: Mapping[str, Tensor], features: Tensor) -> Tensor:
    """Return projections (B, d) of features (B, F)."""
    hidden = (features @ projector["0.weight"].T + projector["0.bias"]).relu()
    return hidden @ projector["2.weight"].T + projector["2.bias"]
