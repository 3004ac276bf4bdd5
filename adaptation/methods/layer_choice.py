"""The choice of BatchNorm layers that a method adapts: one flag per layer, in the order of the network."""

from torch import Tensor

from acclimate.adaptation.errors import ConfigError, NotAdaptable
from acclimate.adaptation.model.network import Network

__all__ = ["chosen_layers", "first_half", "layers_with_time"]


def chosen_layers(layers: tuple[bool, ...] | None, count: int) -> tuple[bool, ...]:
    """Return one flag per layer; all layers when none are given.

    Raises:
        ConfigError: The number of flags is wrong, or every flag is off.

    >>> chosen_layers(None, 2)
    (True, True)
    """
    if layers is None:
        return (True,) * count
    if len(layers) != count:
        raise ConfigError(f"layers: expected {count} flags for this network, got {len(layers)}")
    if not any(layers):
        raise ConfigError("layers: every flag is off, nothing would be adapted; set at least one, or use the source")
    return tuple(layers)


def first_half(count: int) -> tuple[bool, ...]:
    """Return the flags of the first half of the layers, the middle one included.

    >>> first_half(3)
    (True, True, False)
    """
    return tuple(2 * index < count for index in range(count))


def layers_with_time(network: Network, windows: Tensor, layers: tuple[bool, ...] | None = None) -> tuple[bool, ...]:
    """Return the chosen layers at which a single window has statistics of its own.

    Args:
        network: Network in question.
        windows: (n, C, L), n at least 1; the first one is looked at, for its shape.
        layers: One flag per layer; all when not given.

    Raises:
        NotAdaptable: No layer has one: nothing that corrects windows one by one can do anything here.
        ConfigError: The number of flags is wrong, or every flag is off.
    """
    flags = chosen_layers(layers, len(network.norms))
    found = tuple(flag and time for flag, time in zip(flags, network.with_time(windows), strict=True))
    if not any(found):
        raise NotAdaptable(
            "rows without a time axis have no statistics of their own: no chosen BatchNorm layer sees more than one "
            "sample per window; use a method that keeps statistics over many rows, such as cum-bn"
        )
    return found
