"""A generator without torch does to a device what it does with torch, and no more."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from acclimate.adaptation.errors import ContractError, DataError
from acclimate.adaptation.generators.affine_gradient import discrepancy_weight, join, source_features
from acclimate.adaptation.generators.engine import GeneralizeFormerEngine, MggEngine
from acclimate.adaptation.generators.export_generalizeformer import export_generalizeformer
from acclimate.adaptation.generators.export_gradient import export_gradient
from acclimate.adaptation.generators.export_mgg import export_mgg
from acclimate.adaptation.generators.generator import Generator
from acclimate.adaptation.generators.mgg import moments_start
from acclimate.adaptation.generators.valid_range import ValidRange
from acclimate.adaptation.methods.affine_descent import AffineDescent, MggRule
from acclimate.adaptation.methods.generalizeformer import GeneratedBatches
from acclimate.adaptation.model.nets import to_tensors
from acclimate.adaptation.model.network import Network
from acclimate.adaptation.model.spec import NetworkSpec
from tests.adaptation.methods.numpy_net import shifted, source_for
from tests.adaptation.tiny_generators import drawn_generators
from tests.adaptation.tiny_nets import CONV, MLP, ODD

SPECS = pytest.mark.parametrize("spec", [CONV, ODD, MLP])


def parts(spec: NetworkSpec, weight: float) -> tuple[bytes, dict[str, Any], dict[str, Any], Any]:
    """Return the gradient graph, what the source is, its features, and the context."""
    context = source_for(spec)
    network = Network(context.model)
    features = {name: value.numpy() for name, value in vars(source_features(network, context.windows)).items()}
    graph = export_gradient(to_tensors(context.model), spec, features, weight)  # type: ignore[arg-type]
    affine = {name: network.tensors[name] for name in network.affine}
    source = {"coordinates": join(affine).numpy(), "head_weight": network.tensors["head.weight"].numpy()}
    return graph, source, features, context


def mgg_engine(spec: NetworkSpec, generator: Generator) -> MggEngine:
    graph, source, _, _ = parts(spec, discrepancy_weight(spec.classes))
    count = len(source["coordinates"])
    learned = {**moments_start((count,)), **generator.mgg().start(count)}
    start = {name: np.asarray(value, np.float32) for name, value in {**source, **learned}.items()}
    return MggEngine(graph, export_mgg(generator.mgg(), count), start, generator.valid_range)


def former_engine(spec: NetworkSpec, generator: Generator) -> GeneralizeFormerEngine:
    graph, source, features, context = parts(spec, 0.0)
    former = export_generalizeformer(generator.generalizeformer(), to_tensors(context.model), spec, features)
    return GeneralizeFormerEngine(graph, former, source, generator.valid_range)


@SPECS
@pytest.mark.parametrize("name", ["mgg", "mgg-no-memory", "lstm"])
def test_mgg_follows_a_device_as_it_does_with_torch(spec: NetworkSpec, name: str) -> None:
    generator = replace(drawn_generators(spec, 0.3)[name], step_share=0.5)
    engine, method = mgg_engine(spec, generator), AffineDescent(source_for(spec), MggRule(generator), generator)
    state, other = engine.start(), method.reset()
    for part in torch.split(shifted(spec, 192), 64):
        state, found = engine.step(state, part.numpy())
        other, step = method.adapt_batch(other, part)
        np.testing.assert_allclose(found.probabilities, step.probabilities.numpy(), atol=1e-4)
        expected = join({key: other[key] for key in method.adapts}).numpy()
        np.testing.assert_allclose(state["coordinates"], expected, atol=1e-4)


@SPECS
@pytest.mark.parametrize("name", ["generalizeformer", "generalizeformer-classifier"])
def test_generalizeformer_answers_as_it_does_with_torch(spec: NetworkSpec, name: str) -> None:
    generator = replace(drawn_generators(spec, 0.05)[name], step_share=0.6)
    engine, method = former_engine(spec, generator), GeneratedBatches(source_for(spec), generator)
    for part in torch.split(shifted(spec, 128), 64):
        found, (_, step) = engine.generate(part.numpy()), method.adapt_batch({}, part)
        np.testing.assert_allclose(found.probabilities, step.probabilities.numpy(), atol=1e-4)
        assert found.share < 1


def test_beyond_the_range_both_answer_as_the_source_and_move_nothing() -> None:
    narrow = ValidRange(1e-6, 1e-6)
    generators = {name: replace(each, valid_range=narrow) for name, each in drawn_generators(CONV, 0.3).items()}
    windows = shifted(CONV, 64)
    with torch.no_grad():
        source = torch.softmax(source_for(CONV).model(windows), dim=1).numpy()
    engine = mgg_engine(CONV, generators["mgg"])
    state, found = engine.step(engine.start(), windows.numpy())
    assert found.share > 1
    assert all(np.array_equal(value, engine.start()[name]) for name, value in state.items())
    np.testing.assert_allclose(found.probabilities, source, atol=1e-5)
    generated = former_engine(CONV, generators["generalizeformer"]).generate(windows.numpy())
    assert generated.share > 1
    np.testing.assert_allclose(generated.probabilities, source, atol=1e-5)


def test_windows_that_are_not_finite_lie_outside_and_leave_the_state_alone() -> None:
    engine = mgg_engine(CONV, drawn_generators(CONV, 0.3)["mgg"])
    windows = shifted(CONV, 64).numpy()
    windows[3, 0, 0] = np.nan
    state, found = engine.step(engine.start(), windows)
    assert found.share == np.inf
    assert all(np.isfinite(value).all() for value in state.values())


def test_wrong_windows_graphs_and_states_are_refused() -> None:
    generators = drawn_generators(CONV, 0.3)
    engine, former = mgg_engine(CONV, generators["mgg"]), former_engine(CONV, generators["generalizeformer"])
    for windows, least in ((shifted(CONV, 63), 64), (shifted(MLP, 70), 64)):
        with pytest.raises(DataError, match=f"at least {least} windows of 3 x 20"):
            engine.step(engine.start(), windows.numpy())
    with pytest.raises(DataError, match="at least 64 windows"):
        former.generate(shifted(CONV, 7).numpy())
    with pytest.raises(ContractError, match=r"gradient\.onnx: expected an ONNX graph"):
        GeneralizeFormerEngine(b"no graph", b"", {}, ValidRange(1.0, 1.0))
    graph, source, _, _ = parts(CONV, 1.0)
    with pytest.raises(ContractError, match="expected a state"):
        MggEngine(graph, export_mgg(generators["mgg"].mgg(), 26), source, ValidRange(1.0, 1.0))
