"""Augmentation of source training: each window of a batch as another device might have measured it.

Drawn anew for every window of every batch, at strength s, in source standard deviations of the transformed values:

    gain      x <- exp(0.3 s N) x             N per channel                                      (1)
    offset    x <- x + 0.5 s N                N per channel                                      (2)
    noise     x <- x + 0.15 s N               N per sample                                       (3)
    rotation  x <- R x, per triple of channels (x, y, z of one sensor), R about a uniform        (4)
              axis by a uniform angle up to 180 s degrees

in the order rotation, gain, offset, noise: mounting, then sensitivity, then electronics. A share of the windows stays
as recorded, so that the network keeps what an unshifted device shows. The four are kinds of the tuning half of
`acclimate.adaptation.data.corruptions`; kinds of its evaluation half are never trained on.

Sizes 0.3, 0.5, 0.15 are those of the evaluation this design rests on; they were not tuned. RECONSTRUCTED: the scaling
of all sizes by one strength, the angle's bound, and the order. Rotation turns what is left after scaling, that is
about the source's mean reading: turning gravity along with it was tried, and lost ten points on people left out of the
source where this gained eleven.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from acclimate.adaptation.errors import ConfigError

__all__ = ["AUGMENTATIONS", "Augmentation", "augment", "parse_augmentation"]

AUGMENTATIONS = ("gain", "offset", "noise", "rotation")

_GAIN, _OFFSET, _NOISE = 0.3, 0.5, 0.15
_MAX_STRENGTH = 4.0


@dataclass(frozen=True)
class Augmentation:
    """One recipe.

    Args:
        kinds: The names from `AUGMENTATIONS`, in any order; at least one.
        strength: s, above 0 to 4; raising it makes all kinds stronger, rotation up to half a turn at 1.
        clean_share: Expected share of windows that stay as recorded, 0 to below 1.

    Raises:
        ConfigError: A value is out of range.

    >>> Augmentation(("gain", "noise"), 0.5)
    Augmentation(kinds=('gain', 'noise'), strength=0.5, clean_share=0.2)
    """

    kinds: tuple[str, ...]
    strength: float = 1.0
    clean_share: float = 0.2

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in AUGMENTATIONS]
        if unknown or not self.kinds or len(set(self.kinds)) != len(self.kinds):
            raise ConfigError(
                f"augmentation: expected some of {', '.join(AUGMENTATIONS)}, each once, "
                f"got {', '.join(self.kinds) or 'none'}"
            )
        if not 0.0 < self.strength <= _MAX_STRENGTH:
            raise ConfigError(f"augmentation strength: expected above 0 to {_MAX_STRENGTH:g}, got {self.strength}")
        if not 0.0 <= self.clean_share < 1.0:
            raise ConfigError(f"augmentation clean_share: expected 0 to below 1, got {self.clean_share}")

    def __str__(self) -> str:
        """Return the form that `parse_augmentation` reads.

        >>> str(Augmentation(("gain", "offset"), 0.5))
        'gain+offset:0.5'
        """
        return f"{'+'.join(self.kinds)}:{self.strength:g}"

    def check_channels(self, channels: int) -> None:
        """Refuse a recipe that windows of this many channels cannot take.

        Raises:
            ConfigError: Rotation is asked for and the channels do not come in triples of axes.
        """
        if "rotation" in self.kinds and channels % 3:
            raise ConfigError(f"augmentation by rotation turns triples of axes; {channels} channels are none")


def parse_augmentation(text: str) -> Augmentation:
    """Read kinds joined by ``+`` or commas, and after a colon the strength of all of them, 1 when not given.

    Raises:
        ConfigError: The text has another form or a value is out of range.

    >>> parse_augmentation("gain+offset+noise:0.5").strength
    0.5
    >>> str(parse_augmentation("gain,noise"))
    'gain+noise:1'
    >>> parse_augmentation("rotation").kinds
    ('rotation',)
    """
    listed, colon, number = text.partition(":")
    try:
        strength = float(number) if colon else 1.0
    except ValueError as error:
        raise ConfigError(f"augmentation: expected KIND+KIND:STRENGTH such as gain+noise:0.5, got {text!r}") from error
    return Augmentation(tuple(kind.strip() for kind in listed.replace("+", ",").split(",")), strength)


def augment(windows: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Return a batch with each window shifted by a draw of its own; the given tensor is left alone.

    Args:
        windows: (n, C, L), transformed and scaled to source standard deviations.
        augmentation: The recipe.
        generator: Source of all draws; it advances.

    Raises:
        ConfigError: Rotation is asked for and the channels do not come in triples of axes.
    """
    augmentation.check_channels(windows.shape[1])
    n, channels, _ = windows.shape
    strength, kinds = augmentation.strength, augmentation.kinds
    x = windows
    if "rotation" in kinds:  # (4)
        turns = _rotations(n * (channels // 3), strength, generator).view(n, channels // 3, 3, 3)
        x = (turns @ x.reshape(n, channels // 3, 3, -1)).flatten(1, 2)
    if "gain" in kinds:  # (1)
        x = x * torch.exp(_GAIN * strength * torch.randn(n, channels, 1, generator=generator))
    if "offset" in kinds:  # (2)
        x = x + _OFFSET * strength * torch.randn(n, channels, 1, generator=generator)
    if "noise" in kinds:  # (3)
        x = x + _NOISE * strength * torch.randn(x.shape, generator=generator)
    clean = torch.rand(n, 1, 1, generator=generator) < augmentation.clean_share
    return torch.where(clean, windows, x)


def _rotations(count: int, strength: float, generator: torch.Generator) -> Tensor:
    """Return rotation matrices (count, 3, 3) by Rodrigues' formula."""
    axis = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    angle = min(1.0, strength) * math.pi * torch.rand(count, 1, 1, generator=generator)
    x, y, z = axis.unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).view(count, 3, 3)
    return torch.eye(3) + torch.sin(angle) * cross + (1.0 - torch.cos(angle)) * (cross @ cross)
