"""Parameters for a batch from the batch: nothing before it or after it matters, and in doubt the source answers."""

from dataclasses import replace

import pytest
import torch

from acclimate.adaptation.errors import ContractError, NotAdaptable
from acclimate.adaptation.generators.valid_range import ValidRange
from acclimate.adaptation.method import SourceContext
from acclimate.adaptation.methods.catalogue import make_method
from acclimate.adaptation.methods.generalizeformer import GeneratedBatches
from acclimate.adaptation.methods.prepared import Prepared
from acclimate.adaptation.model.network import Network
from acclimate.adaptation.model.spec import NetworkSpec
from tests.adaptation.methods.numpy_net import shifted, source_for
from tests.adaptation.tiny_generators import drawn_generators
from tests.adaptation.tiny_nets import CONV, MLP, ODD

SPECS = pytest.mark.parametrize("spec", [CONV, ODD, MLP])
NAMES = pytest.mark.parametrize("name", ["generalizeformer", "generalizeformer-classifier"])


def drawn(spec: NetworkSpec) -> Prepared:
    return Prepared(generators=drawn_generators(spec, 0.1))


def by_source(context: SourceContext, windows: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.softmax(context.model(windows), dim=1)


@SPECS
@NAMES
def test_an_answer_depends_on_its_batch_and_on_no_other(spec: NetworkSpec, name: str) -> None:
    method, windows = make_method(name, source_for(spec), drawn(spec)), shifted(spec, 192)
    _, alone = method.adapt_batch({}, windows[64:128])
    state, _ = method.adapt_batch(method.reset(), windows[:64])
    state, after = method.adapt_batch(state, windows[64:128])
    method.adapt_batch(state, windows[128:])
    assert state == {}
    assert torch.equal(alone.probabilities, after.probabilities)
    assert not torch.allclose(alone.probabilities, by_source(source_for(spec), windows[64:128]), atol=1e-4)


@SPECS
@NAMES
def test_the_order_of_windows_does_not_matter_but_the_neighbours_do(spec: NetworkSpec, name: str) -> None:
    method, windows = make_method(name, source_for(spec), drawn(spec)), shifted(spec, 64)
    _, given = method.adapt_batch({}, windows)
    _, turned = method.adapt_batch({}, windows.flip(0))
    torch.testing.assert_close(turned.probabilities.flip(0), given.probabilities, atol=1e-5, rtol=0)
    changed = windows.clone()
    changed[0] *= 2
    _, other = method.adapt_batch({}, changed)
    assert not torch.allclose(other.probabilities[1:], given.probabilities[1:], atol=1e-6)


@SPECS
def test_only_gamma_and_beta_are_generated_and_the_head_where_asked(spec: NetworkSpec) -> None:
    affine = Network(source_for(spec).model).affine
    assert make_method("generalizeformer", source_for(spec), drawn(spec)).adapts == affine
    assert make_method("generalizeformer-classifier", source_for(spec), drawn(spec)).adapts == (*affine, "head.weight")


@SPECS
@NAMES
def test_too_few_windows_are_the_source_s(spec: NetworkSpec, name: str) -> None:
    context = source_for(spec)
    method = make_method(name, context, drawn(spec))
    for count in (1, 63):
        windows = shifted(spec, count)
        _, step = method.adapt_batch({}, windows)
        assert torch.equal(step.probabilities, by_source(context, windows))
        assert step.receipts == ({"windows": count, "rung": "source", "verdict": "batch too small"},)


@SPECS
def test_beyond_the_range_the_source_answers_and_it_is_counted(spec: NetworkSpec) -> None:
    context, windows = source_for(spec), shifted(spec, 64)
    strict = replace(drawn(spec).generator("generalizeformer"), valid_range=ValidRange(1e-6, 1e-6))
    _, step = GeneratedBatches(context, strict).adapt_batch({}, windows)
    assert torch.equal(step.probabilities, by_source(context, windows))
    assert step.receipts == ({"windows": 64, "rung": "source", "verdict": "outside the range"},)
    assert step.selected == 0


@NAMES
def test_constant_windows_are_refused_by_the_range_of_a_trained_generator(name: str) -> None:
    context = source_for(CONV)
    generator = replace(drawn(CONV).generator(name), valid_range=ValidRange(30.0, 30.0))
    windows = torch.linspace(-1, 1, 3)[:, None].expand(64, 3, CONV.length).contiguous()
    _, step = GeneratedBatches(context, generator).adapt_batch({}, windows)
    assert [receipt["rung"] for receipt in step.receipts] == ["source"]


@NAMES
def test_broken_windows_get_the_source_s_answer_and_do_not_touch_their_neighbours(name: str) -> None:
    method, windows = make_method(name, source_for(CONV), drawn(CONV)), shifted(CONV, 66)
    broken = windows.clone()
    broken[5] = torch.nan
    broken[11, 0, 0] = torch.inf
    keep = torch.tensor([row not in (5, 11) for row in range(66)])
    _, found = method.adapt_batch({}, broken)
    _, expected = method.adapt_batch({}, windows[keep])
    assert torch.isfinite(found.probabilities).all()
    torch.testing.assert_close(found.probabilities[keep], expected.probabilities, atol=1e-6, rtol=0)
    assert [(receipt["rung"], receipt["windows"]) for receipt in found.receipts] == [
        ("generalizeformer", 64),
        ("source", 2),
    ]


def test_parameters_that_give_nothing_finite_are_not_used() -> None:
    context, windows = source_for(CONV), shifted(CONV, 64)
    generator = drawn(CONV).generator("generalizeformer")
    weights = {**generator.weights, "head.bias": torch.full_like(generator.weights["head.bias"], torch.inf)}
    _, step = GeneratedBatches(context, replace(generator, weights=weights)).adapt_batch({}, windows)
    assert torch.equal(step.probabilities, by_source(context, windows))
    assert step.receipts == ({"windows": 64, "rung": "source", "verdict": "not finite"},)


def test_a_generator_for_narrower_networks_or_of_another_kind_is_refused() -> None:
    with pytest.raises(NotAdaptable, match="up to 7 numbers"):
        GeneratedBatches(source_for(ODD), drawn_generators(CONV)["generalizeformer"])
    with pytest.raises(ContractError, match="expected a GeneralizeFormer"):
        GeneratedBatches(source_for(CONV), drawn_generators(CONV)["mgg"])
    torn = replace(drawn_generators(CONV)["generalizeformer"], weights={})
    with pytest.raises(ContractError, match=r"head\.bias is missing"):
        GeneratedBatches(source_for(CONV), torn)
