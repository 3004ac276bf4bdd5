"""The graph of a GeneralizeFormer, on ONNX Runtime, against torch."""

import numpy as np
import pytest
import torch

from acclimate.adaptation.generators.affine_gradient import affine_gradient, join, source_features
from acclimate.adaptation.generators.export_generalizeformer import export_generalizeformer
from acclimate.adaptation.generators.generalizeformer import (
    GeneralizeFormer,
    GeneralizeFormerSettings,
    generated_tensors,
    named,
    tokens_of,
)
from acclimate.adaptation.generators.generator import VARIANTS
from acclimate.adaptation.model.nets import to_tensors
from acclimate.adaptation.model.network import Network
from acclimate.adaptation.model.spec import NetworkSpec
from tests.adaptation.methods.numpy_net import shifted, source_for
from tests.adaptation.on_onnx_runtime import answers
from tests.adaptation.tiny_generators import disturbed
from tests.adaptation.tiny_nets import CONV, MLP, ODD

FORMERS = [name for name, settings in VARIANTS.items() if isinstance(settings, GeneralizeFormerSettings)]


@pytest.mark.parametrize("spec", [CONV, ODD, MLP])
@pytest.mark.parametrize("name", FORMERS)
def test_the_parameters_of_a_generalizeformer_are_torch_s(spec: NetworkSpec, name: str) -> None:
    settings = VARIANTS[name]
    assert isinstance(settings, GeneralizeFormerSettings)
    context = source_for(spec)
    network, windows = Network(context.model), shifted(spec, 10)
    source = source_features(network, context.windows)
    former = GeneralizeFormer(settings, 16)
    former.load_state_dict(disturbed(former, 2, 0.05))
    former.requires_grad_(False).eval()
    start = {key: value[None] for key, value in generated_tensors(network, True).items()}
    seen, gradients = affine_gradient(network, windows, start, source, 0.0)
    generated = named(
        former(tokens_of(network, seen, gradients, source, 16, settings.classifier)), network, settings.classifier
    )
    head_gradient = gradients.pop("head.weight")[0]
    shown = {
        "gradient": join(gradients)[0],
        "head_gradient": head_gradient,
        "means": torch.cat(seen.means, dim=1)[0],
        "variances": torch.cat(seen.variances, dim=1)[0],
        "features": seen.features.mean(dim=0),
    }
    features = {key: value.numpy() for key, value in vars(source).items()}
    graph = export_generalizeformer(former, to_tensors(context.model), spec, features)  # type: ignore[arg-type]
    found = answers(graph, shown)
    head = generated.pop("head.weight", network.tensors["head.weight"][None])[0]
    np.testing.assert_allclose(found["coordinates"], join(generated)[0].numpy(), atol=1e-4)
    np.testing.assert_allclose(found["head_weight"], head.numpy(), atol=1e-4)
