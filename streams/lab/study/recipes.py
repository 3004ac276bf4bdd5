"""Kinds of source: ``none`` as recorded, ``auto`` as the source finds out, or a recipe such as ``gain+noise:0.5``."""

from acclimate.adaptation.data.augment import Augmentation, parse_augmentation
from acclimate.adaptation.errors import ConfigError

__all__ = ["PLAIN", "augmentation_of", "parse_sources", "respelt"]

PLAIN = "none"  # the source as it is always trained: shown beside every other


def augmentation_of(recipe: str) -> Augmentation | None:
    """Return how the training of a source is augmented; None for the plain one.

    Raises:
        ConfigError: The recipe cannot be read.

    >>> augmentation_of("none"), str(augmentation_of("gain:0.5"))
    (None, 'gain:0.5')
    """
    return None if recipe == PLAIN else parse_augmentation(recipe)


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


def respelt(recipe: str) -> str:
    """Spell a recipe as it is spelt now: folders of earlier versions have commas.

    >>> respelt("gain,noise:0.5")
    'gain+noise:0.5'
    """
    return recipe.replace(",", "+")
