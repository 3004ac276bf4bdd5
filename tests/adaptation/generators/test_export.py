"""The graphs that devices run, on ONNX Runtime, against torch."""

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch

from adaptation.generators.affine_gradient import affine_gradient, batch_distance, join, source_features
from adaptation.generators.export import export_generalizeformer, export_gradient, export_mgg
from adaptation.generators.generalizeformer import (
    GeneralizeFormer,
    GeneralizeFormerSettings,
    generated_tensors,
    named,
    tokens_of,
)
from adaptation.generators.generator import VARIANTS
from adaptation.generators.mgg import Mgg, MggSettings, moments_start, moments_step
from adaptation.methods.network import Network
from adaptation.nets import to_tensors
from adaptation.spec import NetworkSpec
from tests.adaptation.methods.numpy_net import shifted, source_for
from tests.adaptation.tiny_generators import disturbed
from tests.adaptation.tiny_nets import CONV, MLP, ODD

SPECS = pytest.mark.parametrize("spec", [CONV, ODD, MLP])
MGGS = [name for name, settings in VARIANTS.items() if isinstance(settings, MggSettings)]
FORMERS = [name for name in VARIANTS if name not in MGGS]


def session(graph: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def answers(graph: bytes, inputs: dict[str, Any]) -> dict[str, Any]:
    runner = session(graph)
    wanted = {each.name for each in runner.get_inputs()}
    given = {name: np.asarray(value, np.float32) for name, value in inputs.items() if name in wanted}
    return dict(zip((each.name for each in runner.get_outputs()), runner.run(None, given), strict=True))


@SPECS
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


@pytest.mark.parametrize("name", MGGS)
def test_three_steps_of_an_mgg_are_torch_s(name: str) -> None:
    mgg = Mgg(VARIANTS[name])  # type: ignore[arg-type]
    mgg.load_state_dict(disturbed(mgg, 1, 0.3))
    mgg.requires_grad_(False)
    runner, p = export_mgg(mgg, 11, 0.02), torch.randn(11, generator=torch.Generator().manual_seed(0))
    moments, memory = moments_start((11,)), mgg.start(11)
    state = {"coordinates": p, **moments, **memory}
    for seed in range(3):
        gradient = torch.randn(11, generator=torch.Generator().manual_seed(seed + 1)) * 10**seed
        found = answers(runner, {**state, "gradient": gradient})
        moments, x = moments_step(moments, gradient)
        u, memory = mgg(x, memory)
        p = p - 0.02 * u
        for key, value in {"coordinates": p, **moments, **memory}.items():
            np.testing.assert_allclose(found[f"{key}_new"], value.numpy(), atol=1e-4, rtol=1e-4, err_msg=key)
        state = {key.removesuffix("_new"): value for key, value in found.items()}


@SPECS
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


def test_equal_generators_give_equal_files() -> None:
    mgg = Mgg(MggSettings())
    assert export_mgg(mgg, 11, 0.1) == export_mgg(mgg, 11, 0.1)
