"""GeneralizeFormer: a transformer that looks at a batch once and gives the network's parameters for it.

After "GeneralizeFormer: Layer-Adaptive Model Generation across Test-Time Distribution Shifts", Ambekar et al., WACV
2025. Nothing is kept between batches, so nothing can be forgotten. The module's inside is not public, and the public
code trains it on nothing (gradients never reach it); this design is RECONSTRUCTED from the paper's description.

One token per BatchNorm layer and kind (gamma, beta) and, where the classifier is generated, one per class (its row of
weights; biases stay, as published). Vectors are padded to the width c of the widest, with a mask, so narrower networks
fit as well. Of a token with parameters p (source), gradient g of the entropy of the batch, and mean features f of the
batch (input of the head) in source standard deviations:

    (1) g_n = g / (rms(g) + 1e-12),   a = log10(rms(g) + 1e-12)
    (2) r   = what would make this layer's batch statistics the source's again, as a change of gamma and beta:
              r_gamma = gamma (1 / sqrt(r_var) - 1),   r_beta = -gamma m / sqrt(r_var)
              m, r_var: mean of the layer's input in source deviations, its variance over the source's;  0 for classes
    (3) e   = W_p p + W_g g_n + w_a a + W_f f + W_r r + E_kind + W_d (depth from 0 to 1, width / c)
    (4) p_new = p + s_kind head(Transformer(e)),   head starts at zero, s at 0.1

so an untrained generator is the source, and a linear map of (2) alone is a refresh of BatchNorm. Attention goes over
all tokens: layers see each other, windows do not appear but in means, so their order cannot matter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from acclimate.adaptation.errors import ConfigError, NotAdaptable
from acclimate.adaptation.generators.affine_gradient import Seen, SourceFeatures
from acclimate.adaptation.generators.valid_range import LEAST_WINDOWS
from acclimate.adaptation.model.network import Network

__all__ = [
    "GeneralizeFormer",
    "GeneralizeFormerSettings",
    "Target",
    "Tokens",
    "generated_tensors",
    "named",
    "targets",
    "tokens_of",
]

_DIMENSIONS, _LAYERS, _HEADS = 128, 3, 4
_KINDS = ("gamma", "beta", "class")
_TINY, _EPS = 1e-12, 1e-5
_LARGEST = 10.0  # of (2) and f: a batch farther out says no more than that it is far out


@dataclass(frozen=True)
class GeneralizeFormerSettings:
    """The settings: what is generated, and from what.

    Attributes:
        classifier: Whether rows of the classifier are generated, besides gamma and beta.
        gradients, features, parameters: Whether tokens hold (1); f and (2); p. Ablations where not.
        least_windows: Smaller batches are answered by the source, at least 2.
    """

    classifier: bool = False
    gradients: bool = True
    features: bool = True
    parameters: bool = True
    least_windows: int = LEAST_WINDOWS

    def __post_init__(self) -> None:
        if self.least_windows < 2:
            raise ConfigError(f"least_windows: expected at least 2, got {self.least_windows}")


class Target(NamedTuple):
    """One generated vector: its kind of `_KINDS`, the tensor it fills, its row there, where it lies, how long it is."""

    kind: int
    name: str
    row: int | None
    depth: float
    width: int


class Tokens(NamedTuple):
    """The parts of (3), for e batches and t tokens of width c; masked tokens are not looked at."""

    parameters: Tensor  # (t, c): p
    gradients: Tensor  # (e, t, c): g_n
    magnitudes: Tensor  # (e, t, 1): a
    features: Tensor  # (e, t, c): f
    residuals: Tensor  # (e, t, c): r
    places: Tensor  # (t, 2): depth, width / c
    kinds: Tensor  # (t, 3): one-hot
    mask: Tensor  # (t, c): 1 where there is a parameter
    feature_mask: Tensor  # (c,): 1 where there is a feature


def targets(network: Network, classifier: bool) -> tuple[Target, ...]:
    """Return what is generated, in the order of the tokens."""
    found = []
    for index, name in enumerate(network.affine):
        layer = index // 2
        depth = layer / max(1, len(network.norms) - 1)
        found.append(Target(index % 2, name, None, depth, network.tensors[name].numel()))
    if classifier:
        found += [Target(2, f"{network.head}.weight", k, 1.0, network.features) for k in range(network.classes)]
    return tuple(found)


def generated_tensors(network: Network, classifier: bool) -> dict[str, Tensor]:
    """Return the source's own values of all tensors that are generated, by name."""
    return {target.name: network.tensors[target.name] for target in targets(network, classifier)}


class GeneralizeFormer(nn.Module):
    """The transformer.

    Args:
        settings: The settings.
        width: c, of the widest vector that it will see.
        seed: The seed of the initial weights.
    """

    def __init__(self, settings: GeneralizeFormerSettings, width: int, seed: int = 0) -> None:
        super().__init__()
        self.settings, self.width = settings, width
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.parameters_in = nn.Linear(width, _DIMENSIONS)
            self.gradients_in = nn.Linear(width + 1, _DIMENSIONS, bias=False)
            self.features_in = nn.Linear(width, _DIMENSIONS, bias=False)
            self.residuals_in = nn.Linear(width, _DIMENSIONS, bias=False)
            self.kind_in = nn.Linear(len(_KINDS), _DIMENSIONS, bias=False)
            self.place_in = nn.Linear(2, _DIMENSIONS, bias=False)
            # No dropout: it would draw from torch's global state, and episodes never repeat.
            layer = nn.TransformerEncoderLayer(
                _DIMENSIONS, _HEADS, 2 * _DIMENSIONS, dropout=0.0, batch_first=True, norm_first=True
            )
            self.encoder = nn.TransformerEncoder(layer, _LAYERS, enable_nested_tensor=False)
            self.head = nn.Linear(_DIMENSIONS, width)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.scale = nn.Parameter(torch.full((len(_KINDS),), 0.1))

    def forward(self, tokens: Tokens) -> Tensor:
        """Return p_new (e, t, c) of (4), padding included; e batches."""
        e = self.kind_in(tokens.kinds) + self.place_in(tokens.places)  # (t, d)
        known = tokens.mask if self.settings.parameters else torch.zeros_like(tokens.mask)
        e = (e + self.parameters_in(tokens.parameters * known)).expand(len(tokens.gradients), -1, -1)
        if self.settings.gradients:
            e = e + self.gradients_in(torch.cat((tokens.gradients * tokens.mask, tokens.magnitudes), dim=2))
        if self.settings.features:
            e = e + self.features_in(tokens.features * tokens.feature_mask)
            e = e + self.residuals_in(tokens.residuals * tokens.mask)  # (3)
        step: Tensor = self.head(self.encoder(e)) * (tokens.kinds @ self.scale)[:, None] * tokens.mask
        return tokens.parameters + step  # (4)


def tokens_of(
    network: Network,
    seen: Seen,
    gradients: Mapping[str, Tensor],
    source: SourceFeatures,
    width: int,
    classifier: bool,
) -> Tokens:
    """Return the tokens of several batches.

    Args:
        network: Source model.
        seen: A pass of e batches at the source's parameters.
        gradients: The gradients by name, (e, C), and (e, K, F) of the head's weight where the classifier is generated.
        source: The source's parameters.
        width: c.
        classifier: Whether rows of the classifier are generated.

    Raises:
        NotAdaptable: A vector is wider than c.
    """
    plan = targets(network, classifier)
    widest = max(*(target.width for target in plan), network.features)
    if widest > width:
        raise NotAdaptable(f"this generator takes vectors of up to {width} numbers, the network has one of {widest}")
    groups = len(seen.activations)
    inverse = [variance.rsqrt() for variance in seen.variances]

    def padded(vector: Tensor) -> Tensor:
        return nn.functional.pad(vector, (0, width - vector.shape[-1]))

    parameters, normalised, magnitudes, residuals = [], [], [], []
    for index, target in enumerate(plan):
        p, g = network.tensors[target.name], gradients[target.name]
        if target.row is not None:
            p, g = p[target.row], g[:, target.row]
        rms = g.square().mean(dim=1, keepdim=True).sqrt() + _TINY  # (1)
        if target.kind == 0:
            r = p * (inverse[index // 2] - 1)  # (2)
        elif target.kind == 1:
            gamma = network.tensors[plan[index - 1].name]
            r = -gamma * seen.means[index // 2] * inverse[index // 2]
        else:
            r = torch.zeros_like(g)
        parameters.append(padded(p))
        normalised.append(padded(g / rms))
        magnitudes.append(rms.log10())
        residuals.append(padded(r.clamp(-_LARGEST, _LARGEST)))
    mean = seen.features.reshape(groups, -1, network.features).mean(dim=1)
    f = ((mean - source.head_mean) / (source.head_std + _EPS)).clamp(-_LARGEST, _LARGEST)
    device = mean.device
    return Tokens(
        parameters=torch.stack(parameters),
        gradients=torch.stack(normalised, dim=1),
        magnitudes=torch.stack(magnitudes, dim=1),
        features=padded(f)[:, None].expand(-1, len(plan), -1),
        residuals=torch.stack(residuals, dim=1),
        places=torch.tensor([[target.depth, target.width / width] for target in plan], device=device),
        kinds=nn.functional.one_hot(torch.tensor([target.kind for target in plan]), len(_KINDS)).float().to(device),
        mask=torch.tensor([[float(i < target.width) for i in range(width)] for target in plan], device=device),
        feature_mask=torch.tensor([float(i < network.features) for i in range(width)], device=device),
    )


def named(generated: Tensor, network: Network, classifier: bool) -> dict[str, Tensor]:
    """Return p_new (e, t, c) as tensors by name: (e, C), and (e, K, F) of the head's weight."""
    plan = targets(network, classifier)
    found = {target.name: generated[:, i, : target.width] for i, target in enumerate(plan) if target.row is None}
    if classifier:
        first = len(network.affine)
        found[f"{network.head}.weight"] = generated[:, first:, : network.features]
    return found
