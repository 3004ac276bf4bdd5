"""Steps of gamma and beta: predict first, never beyond the bound, never outside of the range, the same in any batch."""

from dataclasses import replace

import pytest
import torch

from acclimate.adaptation.errors import ConfigError, ContractError
from acclimate.adaptation.generators.affine_gradient import (
    discrepancy_weight,
    look,
    loss_without_labels,
    source_features,
)
from acclimate.adaptation.generators.valid_range import LEAST_WINDOWS, ValidRange
from acclimate.adaptation.method import SourceContext, State
from acclimate.adaptation.methods.affine_descent import AdamRule, AffineDescent, MggRule, Rule, SgdRule
from acclimate.adaptation.methods.catalogue import make_method
from acclimate.adaptation.methods.prepared import Prepared
from acclimate.adaptation.model.network import Network
from acclimate.adaptation.model.spec import NetworkSpec
from tests.adaptation.methods.numpy_net import shifted, source_for
from tests.adaptation.tiny_generators import drawn_generators
from tests.adaptation.tiny_nets import CONV, MLP, ODD

SPECS = pytest.mark.parametrize("spec", [CONV, ODD, MLP])
RULES = pytest.mark.parametrize("rule", ["mgg", "mgg-uncorrected", "lstm", "same-loss-sgd", "same-loss-adam"])


def drawn(spec: NetworkSpec) -> Prepared:
    return Prepared(generators=drawn_generators(spec, 0.3))


def affine(context: SourceContext, state: State) -> torch.Tensor:
    return torch.cat([state[name] for name in Network(context.model).affine])


def by_source(context: SourceContext, windows: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.softmax(context.model(windows), dim=1)


@SPECS
@RULES
def test_the_first_batch_gets_the_source_s_answer_and_moves_gamma_and_beta_alone(spec: NetworkSpec, rule: str) -> None:
    context, windows = source_for(spec), shifted(spec, LEAST_WINDOWS)
    method = make_method(rule, context, drawn(spec))
    state, step = method.adapt_batch(method.reset(), windows)
    torch.testing.assert_close(step.probabilities, by_source(context, windows), atol=1e-5, rtol=0)
    assert step.updates == 1
    assert method.adapts == Network(context.model).affine
    assert not torch.equal(affine(context, state), affine(context, method.reset()))
    _, later = method.adapt_batch(state, windows)
    with torch.no_grad():
        moved = look(Network(context.model), windows, {name: state[name] for name in method.adapts}).logits
    torch.testing.assert_close(later.probabilities, torch.softmax(moved, dim=1), atol=1e-5, rtol=0)


@SPECS
def test_no_coordinate_moves_by_more_than_alpha(spec: NetworkSpec) -> None:
    context, alpha = source_for(spec), 0.02
    for name, bound in (("mgg-uncorrected", alpha), ("mgg", 2 * alpha)):
        generator = replace(drawn(spec).generator(name), step_share=alpha / 0.03)
        method = AffineDescent(context, MggRule(generator), generator)
        state = method.reset()
        for part in torch.split(5 * shifted(spec, 192), 64):
            before = affine(context, state)
            state, _ = method.adapt_batch(state, part)
            assert 0 < (affine(context, state) - before).abs().max() <= bound + 1e-7


@SPECS
def test_with_steps_of_0_nothing_moves_by_a_bit(spec: NetworkSpec) -> None:
    context, windows = source_for(spec), shifted(spec, 128)
    generator = drawn(spec).generator("mgg")
    still = replace(generator, weights={**generator.weights, "out": torch.zeros_like(generator.weights["out"])})
    method = AffineDescent(context, MggRule(still), still)
    state = method.reset()
    for part in torch.split(windows, 64):
        state, step = method.adapt_batch(state, part)
        torch.testing.assert_close(step.probabilities, by_source(context, part), atol=1e-5, rtol=0)
    assert torch.equal(affine(context, state), affine(context, method.reset()))


@SPECS
@pytest.mark.parametrize(("rule", "kind"), [(SgdRule(), "sgd"), (AdamRule(), "adam")])
def test_plain_rules_follow_torch_s_own_optimizers(spec: NetworkSpec, rule: Rule, kind: str) -> None:
    context, windows = source_for(spec), shifted(spec, 192)
    method = AffineDescent(context, rule)
    state = method.reset()
    network = Network(context.model)
    source = source_features(network, context.windows)
    leaves = {name: network.tensors[name].clone().requires_grad_() for name in network.affine}
    values = list(leaves.values())
    optimizer: torch.optim.Optimizer = (
        torch.optim.SGD(values, 1e-3, momentum=0.9) if kind == "sgd" else torch.optim.Adam(values, 1e-3)
    )
    for part in torch.split(windows, 64):
        state, _ = method.adapt_batch(state, part)
        optimizer.zero_grad()
        weight = discrepancy_weight(network.classes)
        loss_without_labels(look(network, part, leaves), source, weight).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    for name, value in leaves.items():
        torch.testing.assert_close(state[name], value.detach(), atol=2e-5, rtol=1e-4)


@SPECS
@RULES
def test_small_batches_are_gathered_and_step_as_one(spec: NetworkSpec, rule: str) -> None:
    context, windows = source_for(spec), shifted(spec, LEAST_WINDOWS)
    method = make_method(rule, context, drawn(spec))
    whole, _ = method.adapt_batch(method.reset(), windows)
    state, updates = method.reset(), []
    for part in torch.split(windows, [1, 3, 1, 7, 52]):
        state, step = method.adapt_batch(state, part)
        updates.append(step.updates)
    assert updates == [0, 0, 0, 0, 1]
    torch.testing.assert_close(affine(context, state), affine(context, whole), atol=1e-5, rtol=1e-4)
    assert int(state["gathered"]) == 0


@SPECS
def test_beyond_the_range_the_source_answers_nothing_moves_and_it_is_counted(spec: NetworkSpec) -> None:
    context = source_for(spec)
    strict = replace(drawn(spec).generator("mgg"), valid_range=ValidRange(1e-6, 1e-6))
    method = AffineDescent(context, MggRule(strict), strict)
    windows = shifted(spec, 72)
    state, step = method.adapt_batch(method.reset(), windows[:64])
    assert step.receipts == ({"windows": 64, "rung": "source", "verdict": "outside the range"},)
    assert step.updates == 0
    torch.testing.assert_close(step.probabilities, by_source(context, windows[:64]))
    assert torch.equal(affine(context, state), affine(context, method.reset()))
    _, single = method.adapt_batch(state, windows[64:65])  # a window alone is judged by the last batch
    assert single.receipts == ({"windows": 1, "rung": "source", "verdict": "outside the range"},)


def test_inside_the_range_again_it_answers_again() -> None:
    context = source_for(CONV)
    generator = replace(drawn(CONV).generator("mgg"), valid_range=ValidRange(5.0, 5.0))
    method = AffineDescent(context, MggRule(generator), generator)
    near, far = context.windows.repeat(2, 1, 1), 40 * context.windows.repeat(2, 1, 1)
    state, first = method.adapt_batch(method.reset(), far)
    state, again = method.adapt_batch(state, near)
    assert [step.receipts[0]["rung"] for step in (first, again)] == ["source", "mgg"]
    assert (first.updates, again.updates) == (0, 1)


@RULES
def test_a_batch_of_nothing_sane_is_answered_and_leaves_no_trace(rule: str) -> None:
    context = source_for(CONV)
    method = make_method(rule, context, drawn(CONV))
    state = method.reset()
    after, step = method.adapt_batch(state, torch.full((20, CONV.channels, CONV.length), torch.nan))
    assert torch.isfinite(step.probabilities).all()
    assert after is state


def test_without_its_generator_a_method_says_what_it_needs() -> None:
    with pytest.raises(ConfigError, match="mgg needs a generator that was meta-trained"):
        make_method("mgg", source_for(CONV))
    with pytest.raises(ContractError, match="expected an MGG"):
        MggRule(drawn_generators(CONV)["generalizeformer"])


def test_a_source_sample_of_one_window_is_refused() -> None:
    context = source_for(CONV)
    with pytest.raises(ConfigError, match="at least 2"):
        AffineDescent(replace(context, windows=context.windows[:1], labels=context.labels[:1]), SgdRule())
