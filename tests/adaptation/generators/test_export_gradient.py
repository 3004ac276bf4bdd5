"""The gradient graph, on ONNX Runtime, against automatic differentiation."""

import numpy as np
import pytest
import torch

from acclimate.adaptation.generators.affine_gradient import affine_gradient, batch_distance, join, source_features
from acclimate.adaptation.generators.export_gradient import export_gradient
from acclimate.adaptation.generators.generalizeformer import generated_tensors
from acclimate.adaptation.model.nets import to_tensors
from acclimate.adaptation.model.network import Network
from acclimate.adaptation.model.spec import NetworkSpec
from tests.adaptation.methods.numpy_net import shifted, source_for
from tests.adaptation.on_onnx_runtime import answers
from tests.adaptation.tiny_nets import CONV, MLP, ODD


@pytest.mark.parametrize("spec", [CONV, ODD, MLP])
@pytest.mark.parametrize("weight", [0.0, 4.0])
@pytest.mark.parametrize("count", [2, 9])
def test_the_gradient_graph_gives_what_automatic_differentiation_gives(
    spec: NetworkSpec, weight: float, count: int
) -> None:
    context = source_for(spec)
    network, windows = Network(context.model), shifted(spec, count)
    source = source_features(network, context.windows)
    drawn = torch.Generator().manual_seed(4)
    start = {
        name: (value + 0.3 * torch.randn(value.shape, generator=drawn))[None]
        for name, value in generated_tensors(network, True).items()
    }
    seen, gradients = affine_gradient(network, windows, start, source, weight)
    head_gradient = gradients.pop("head.weight")[0]
    features = {name: value.numpy() for name, value in vars(source).items()}
    graph = export_gradient(to_tensors(context.model), spec, features, weight)  # type: ignore[arg-type]
    coordinates = join({name: value[0] for name, value in start.items() if name != "head.weight"})
    found = answers(graph, {"windows": windows, "coordinates": coordinates, "head_weight": start["head.weight"][0]})
    mean_part, variance_part = batch_distance(seen)
    expected = {
        "probabilities": torch.softmax(seen.logits, dim=1),
        "gradient": join(gradients)[0],
        "head_gradient": head_gradient,
        "means": torch.cat(seen.means, dim=1)[0],
        "variances": torch.cat(seen.variances, dim=1)[0],
        "features": seen.features.mean(dim=0),
        "mean_part": mean_part[0],
        "variance_part": variance_part[0],
    }
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value.numpy(), atol=1e-4, rtol=1e-3, err_msg=name)


def test_where_two_neighbours_are_equal_the_gradient_goes_to_the_first_as_in_torch() -> None:
    context = source_for(CONV)
    network = Network(context.model)
    windows = shifted(CONV, 6)
    windows[:, :, :] = windows[:, :, :1]  # constant: away from the borders all neighbours are equal
    source = source_features(network, context.windows)
    start = {name: network.tensors[name] for name in network.affine}
    _, gradients = affine_gradient(network, windows, start, source, 0.0)
    features = {name: value.numpy() for name, value in vars(source).items()}
    graph = export_gradient(to_tensors(context.model), CONV, features, 0.0)  # type: ignore[arg-type]
    head = network.tensors["head.weight"]
    found = answers(graph, {"windows": windows, "coordinates": join(start), "head_weight": head})
    np.testing.assert_allclose(found["gradient"], join(gradients).numpy(), atol=1e-5)
