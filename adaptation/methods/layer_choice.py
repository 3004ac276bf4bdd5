"""Which BatchNorm layers a method adapts: one flag per layer, in the order of the network."""

from adaptation.errors import ConfigError

__all__ = ["chosen_layers", "first_half"]


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
