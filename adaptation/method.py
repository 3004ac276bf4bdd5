"""The protocol of all methods: from a device's state and a batch of its windows to answers and the next state.

    method = Tent(context)                       configured from a source model, which it copies
    state = method.reset()                       a device starts, or starts again
    state, step = method.adapt_batch(state, windows)

Labels of targets have no way in. State is a flat mapping of named tensors, as in a state dict: it saves with
safetensors, compares bit for bit and has a size in bytes. No method writes into a tensor that it was given.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from acclimate.adaptation.errors import ConfigError, NotAdaptable

__all__ = ["Method", "SourceContext", "State", "Step", "require_adapted", "state_bytes"]

State = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class SourceContext:
    """The source, as far as a method may know it.

    Attributes:
        model: The trained network, in evaluation mode.
        windows: (m, C, L) raw source windows, every class in about equal numbers; a few hundred.
        labels: (m,) their classes.
        seed: The seed for all random draws of a method.
        recorded: (n, C, L) all source windows in stored order, every class as often as it came, which is what
            generators compare features to, here as in meta-training; ``windows`` where not given.
    """

    model: nn.Module
    windows: Tensor
    labels: Tensor
    seed: int = 0
    recorded: Tensor | None = None

    def __post_init__(self) -> None:
        if len(self.windows) == 0 or len(self.windows) != len(self.labels):
            raise ConfigError(
                f"source sample: expected as many windows as labels and at least one, "
                f"got {len(self.windows)} and {len(self.labels)}"
            )

    @property
    def all_windows(self) -> Tensor:
        """All source windows, or those there are."""
        return self.windows if self.recorded is None else self.recorded


@dataclass(frozen=True, eq=False)
class Step:
    """The answer to one batch and what was changed.

    Attributes:
        probabilities: (n, K), rows sum to 1.
        updates: Changes of the state that later windows feel: gradient steps, or batches taken into statistics or
            memories.
        resets: Times the method went back to the source by its own rule.
        selected: Windows that were used for the updates.
        receipts: Where a method has a gate, the decisions behind the answers, stretch by stretch: ``windows`` (how many
            it answered), ``rung``, ``gate``, ``limit``, ``verdict`` and more; JSON values.
    """

    probabilities: Tensor
    updates: int = 0
    resets: int = 0
    selected: int = 0
    receipts: tuple[Mapping[str, str | float | None], ...] = ()


class Method(Protocol):
    """One way to adapt.

    Attributes:
        adapts: Names of the network's tensors whose values it replaces; empty where it changes answers alone.
        stateless: Whether an answer depends on its own window alone; then the state is empty.
    """

    @property
    def adapts(self) -> tuple[str, ...]: ...

    @property
    def stateless(self) -> bool: ...

    def reset(self) -> State:
        """Return the state of a device that was never seen."""
        ...

    def adapt_batch(self, state: State, windows: Tensor) -> tuple[State, Step]:
        """Answer windows (n, C, L), n at least 1, in stream order, and return the state after them."""
        ...


def require_adapted(names: tuple[str, ...], what: str) -> tuple[str, ...]:
    """Return the names, or refuse an empty set: a method that adapts nothing is the source under another name.

    Raises:
        NotAdaptable: The set is empty.
    """
    if not names:
        raise NotAdaptable(f"no {what} to adapt: expected at least one BatchNorm layer in the selection")
    return names


def state_bytes(state: State) -> int:
    """Return the memory that a device's state takes.

    >>> import torch
    >>> state_bytes({"a": torch.zeros(3), "b": torch.zeros(2, dtype=torch.int64)})
    28
    """
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())
