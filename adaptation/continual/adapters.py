"""Adapters: what is a device's own on a network that all share, and how a batch of several devices runs through it.

Gamma, beta and the head of device d are the shared ones and a difference that only its windows teach:

    (1) gamma_d = gamma + delta gamma_d,  beta_d = beta + delta beta_d              of every BatchNorm layer
    (2) z = (W + delta W_d) f(x) + b + delta b_d                                    head

Differences begin at 0: a device that nobody has told anything about is answered by the shared network. RECONSTRUCTED,
after residual adapters (Rebuffi et al., NeurIPS 2017) and per-domain BatchNorm (Chang et al., CVPR 2019), whose
adapters have no shared part. All devices' differences lie in one tensor per name, (D, *shape), so that a batch of any
mixture is one forward pass.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from acclimate.adaptation.model.network import Layer, Network, normalise_with

__all__ = ["adapted", "adapter_names", "personal_logits", "with_devices"]


def adapter_names(network: Network) -> tuple[str, ...]:
    """Return the names of the tensors that a device has its own of: gamma, beta, and what the head has."""
    head = tuple(f"{network.head}.{kind}" for kind in ("weight", "bias"))
    return (*network.affine, *(name for name in head if name in network.tensors))


def with_devices(adapters: Mapping[str, Tensor], devices: int) -> dict[str, Tensor]:
    """Return tensors (D, ...) with room for at least so many devices; new rows are 0."""
    missing = {name: max(0, devices - len(value)) for name, value in adapters.items()}
    return {name: torch.cat([v, v.new_zeros(missing[name], *v.shape[1:])]) for name, v in adapters.items()}


def adapted(shared: Mapping[str, Tensor], adapters: Mapping[str, Tensor], device: int) -> dict[str, Tensor]:
    """Return the tensors of one device, by name; the shared ones where nothing is known of it: (1), (2)."""
    own = {name: value[device] for name, value in adapters.items() if device < len(value)}
    return {name: value + own[name] if name in own else value for name, value in shared.items()}


def personal_logits(
    network: Network, shared: Mapping[str, Tensor], adapters: Mapping[str, Tensor], windows: Tensor, devices: Tensor
) -> Tensor:
    """Return the logits (n, K) of windows (n, C, L), each answered by its device's network: (1), (2).

    Args:
        network: The source.
        shared: The tensors that replace the network's, by name; gradients flow into them.
        adapters: Differences (D, *shape) by the names of `adapter_names`; gradients flow into them.
        windows: Raw windows.
        devices: (n,) rows of the adapters.
    """
    own = {name: value[devices] for name, value in adapters.items()}

    def rule(layer: Layer, x: Tensor) -> Tensor:
        gamma, beta = (own[f"{network.norms[layer.index]}.{kind}"] for kind in ("weight", "bias"))  # (n, C)
        mine = replace(layer, gamma=layer.gamma + gamma, beta=layer.beta + beta)
        return normalise_with(mine, x, layer.mean.expand_as(gamma), layer.var)

    seen = network.forward(windows, shared, rule)
    logits = seen.logits + torch.einsum("nf,nkf->nk", seen.features, own[f"{network.head}.weight"])
    bias = own.get(f"{network.head}.bias")
    return logits if bias is None else logits + bias
