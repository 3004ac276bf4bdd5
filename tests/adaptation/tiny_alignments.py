"""Aligned encoders with drawn weights, for tests of what holds whatever they learned."""

import torch

from acclimate.adaptation.alignment.aligned import VARIANTS, Aligned
from acclimate.adaptation.alignment.tasks import Task
from acclimate.adaptation.alignment.views import Views
from acclimate.adaptation.method import SourceContext
from acclimate.adaptation.model.network import Network
from acclimate.adaptation.model.source_units import SourceUnits

__all__ = ["drawn_alignments"]


def drawn_alignments(context: SourceContext) -> dict[str, Aligned]:
    """Return one of each variant: the source's own encoder with noise on it, its head, and a drawn projector."""
    network, units = Network(context.model), SourceUnits(context)
    views = Views(context.windows.shape[-1])
    generator = torch.Generator().manual_seed(0)
    encoder = {
        name: value + 0.02 * value.abs() * torch.randn(value.shape, generator=generator)
        for name, value in network.tensors.items()
        if not name.startswith(f"{network.head}.")
    }
    head = {kind: network.tensors[f"{network.head}.{kind}"] for kind in ("weight", "bias")}
    found = {}
    for name, settings in VARIANTS.items():
        with torch.random.fork_rng():
            torch.manual_seed(1)
            layers = Task(settings, units, views, lambda windows: network.forward(windows).features).projector(
                network.features, context.windows[0].numel()
            )
        projector = {key: value.detach() for key, value in layers.named_parameters()}
        found[name] = Aligned(settings, encoder, head, projector, (), 1.0, 0.1, 0.9, 0.1)
    return found
