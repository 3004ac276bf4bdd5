"""Generators with drawn weights, for tests of what holds whatever they learned."""

import functools

import numpy as np
import torch

from acclimate.adaptation.generators.episodes import Recordings
from acclimate.adaptation.generators.generalizeformer import GeneralizeFormer
from acclimate.adaptation.generators.generator import VARIANTS, Generator
from acclimate.adaptation.generators.mgg import Mgg, MggSettings
from acclimate.adaptation.generators.valid_range import ValidRange
from acclimate.adaptation.model.spec import NetworkSpec
from tests.adaptation.tiny_nets import tones

EVERYWHERE = ValidRange(1e30, 1e30)


def disturbed(module: torch.nn.Module, seed: int, size: float) -> dict[str, torch.Tensor]:
    """Return a module's weights with noise on each, so that nothing is still zero, or one, by construction."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: value + size * torch.randn(value.shape, generator=generator)
        for name, value in module.state_dict().items()
    }


@functools.cache
def drawn_generators(spec: NetworkSpec, size: float = 0.05) -> dict[str, Generator]:
    """Return one of each variant that fits the network."""
    found = {}
    for seed, (name, settings) in enumerate(VARIANTS.items()):
        module: Mgg | GeneralizeFormer
        if isinstance(settings, MggSettings):
            module = Mgg(settings, seed)
        else:
            module = GeneralizeFormer(settings, max(spec.widths), seed)
        found[name] = Generator(settings, disturbed(module, seed, size), EVERYWHERE)
    return found


def recordings(seed: int = 2) -> Recordings:
    """Return 600 windows of six groups to meta-train on."""
    windows, labels = tones(600, seed)
    return Recordings(windows, labels, np.repeat([f"g{i}" for i in range(6)], 100))
