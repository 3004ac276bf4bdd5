"""A fixed-size memory of the surest features of each class, and the classifier that they make.

The part that T3A and OFTTA share. Each class has room for M features, of unit length, with the entropy of the answer
that put them there; free places hold zeros and infinite entropy. Of all features ever offered to a class the M of the
lowest entropy stay, the older of equals. Places are sorted by entropy, so the last one is the limit that a newcomer
must beat.

    (1) class of a feature = argmax of its logits;  entropy = H(softmax(logits)), in nats
    (2) t_k = normalise(sum of the features of class k)
    (3) logit_k = z . t_k, z not normalised
"""

import torch
from torch import Tensor, nn

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.method import State
from acclimate.adaptation.model.losses import entropies
from acclimate.adaptation.model.network import Network

__all__ = ["admit", "head_supports", "prototype_logits", "start_supports", "templates"]


def start_supports(head_weight: Tensor, head_bias: Tensor | None, per_class: int) -> dict[str, Tensor]:
    """Return a memory that holds the rows of the head, each under the class that the head itself gives it.

    Args:
        head_weight, head_bias: The weight and bias of the last linear layer, (K, F) and (K,).
        per_class: M, at least 1.

    Returns:
        ``supports`` (K, M, F) and ``entropies`` (K, M).

    Raises:
        ConfigError: M is out of range.
    """
    if per_class < 1:
        raise ConfigError(f"per_class: expected at least 1 support, got {per_class}")
    classes, features = head_weight.shape
    empty = {
        "supports": head_weight.new_zeros(classes, per_class, features),
        "entropies": head_weight.new_full((classes, per_class), torch.inf),
    }
    memory, _ = admit(empty, head_weight, nn.functional.linear(head_weight, head_weight, head_bias))
    return dict(memory)


def head_supports(network: Network, per_class: int) -> dict[str, Tensor]:
    """Return `start_supports` of a network's head."""
    head, tensors = network.head, network.tensors
    return start_supports(tensors[f"{head}.weight"], tensors.get(f"{head}.bias"), per_class)


def admit(memory: State, features: Tensor, logits: Tensor) -> tuple[State, int]:
    """Offer features (n, F) with their logits (n, K), all at once; return the memory and how many entered.

    The memory given is returned itself where none did, which is the usual case once it has filled.
    """
    supports, kept = memory["supports"], memory["entropies"]  # (K, M, F), (K, M)
    classes, per_class, _ = supports.shape
    doubt, labels = entropies(logits), logits.argmax(dim=1)  # (n,) each: (1)
    surer = doubt < kept[:, -1][labels]  # (n,)
    if not surer.any():
        return memory, 0
    unit = nn.functional.normalize(features[surer], dim=1)  # (e, F)
    offered = kept.new_full((classes, len(unit)), torch.inf)  # (K, e)
    offered[labels[surer], torch.arange(len(unit))] = doubt[surer]
    # Stable: a class's own free places come before the infinities that stand for newcomers of other classes.
    ranked, order = torch.sort(torch.cat([kept, offered], dim=1), dim=1, stable=True)  # (K, M + e)
    order = order[:, :per_class]
    own = order + torch.arange(classes)[:, None] * per_class  # places in the flattened memory
    places = torch.where(order < per_class, own, order + (classes - 1) * per_class)  # newcomers lie behind it
    everything = torch.cat([supports.flatten(0, 1), unit])  # (K M + e, F)
    chosen = everything[places]  # (K, M, F)
    entered = int((order >= per_class).sum())
    return {"supports": chosen, "entropies": ranked[:, :per_class].contiguous()}, entered


def prototype_logits(memory: State, features: Tensor) -> Tensor:
    """Return (n, K) for features (n, F); 0 for a class without supports."""
    return features @ templates(memory).T  # (3)


def templates(memory: State) -> Tensor:
    """Return the mean direction of each class's supports, (K, F) of unit length; zeros for a class without any."""
    return nn.functional.normalize(memory["supports"].sum(dim=1), dim=1)  # (2)
