"""The pass and the gradient that both generators look at, against float64 numpy and differences."""

import copy

import numpy as np
import pytest
import torch

from acclimate.adaptation.generators.affine_gradient import (
    SourceFeatures,
    affine_gradient,
    discrepancy_weight,
    join,
    logits_with,
    look,
    loss_without_labels,
    source_features,
    split,
)
from acclimate.adaptation.model.network import Network
from acclimate.adaptation.model.spec import NetworkSpec
from tests.adaptation.methods.numpy_net import Array, axes, entropy, run, shifted, softmax, source_for
from tests.adaptation.tiny_nets import CONV, MLP, ODD

SPECS = pytest.mark.parametrize("spec", [CONV, ODD, MLP])


def reference(spec: NetworkSpec, windows: torch.Tensor) -> tuple[Array, Array, list[Array], list[Array]]:
    """Return logits, (2), and statistics in source units, by the numpy network."""
    model = source_for(spec).model
    seen, means, variances = [], [], []

    def rule(index: int, x: Array, mean: Array, var: Array) -> tuple[Array, Array]:
        tail = (1,) * (x.ndim - 2)
        norm = model.blocks[index].norm  # type: ignore[union-attr, index]
        gamma, beta = (value.detach().numpy().astype(np.float64) for value in (norm.weight, norm.bias))  # type: ignore[union-attr]
        y = (x - mean.reshape(-1, *tail)) / np.sqrt(var + 1e-5).reshape(-1, *tail)
        y = y * gamma.reshape(-1, *tail) + beta.reshape(-1, *tail)
        seen.append(y.mean(axis=2) if y.ndim == 3 else y)
        means.append((x.mean(axis=axes(x)) - mean) / np.sqrt(var + 1e-5))
        variances.append((x.var(axis=axes(x)) + 1e-5) / (var + 1e-5))
        return mean, var

    logits, _ = run(model, windows, rule)  # type: ignore[arg-type]
    return logits, np.concatenate(seen, axis=1), means, variances


@SPECS
def test_a_pass_shows_what_the_numpy_network_shows(spec: NetworkSpec) -> None:
    windows = shifted(spec, 9)
    seen = look(Network(source_for(spec).model), windows, {})
    logits, activations, means, variances = reference(spec, windows)
    np.testing.assert_allclose(seen.logits.numpy(), logits, atol=2e-4)
    np.testing.assert_allclose(seen.activations[0].numpy(), activations, atol=2e-4)
    for found, expected in zip((*seen.means, *seen.variances), (*means, *variances), strict=True):
        np.testing.assert_allclose(found[0].numpy(), expected, rtol=2e-3, atol=2e-4)


@SPECS
def test_the_loss_is_entropy_and_distance_from_the_source_s_features(spec: NetworkSpec) -> None:
    windows, context = shifted(spec, 9), source_for(spec)
    network = Network(context.model)
    source = source_features(network, context.windows)
    _, at_source, _, _ = reference(spec, context.windows)
    np.testing.assert_allclose(source.mean.numpy(), at_source.mean(axis=0), atol=1e-3)
    np.testing.assert_allclose(source.std.numpy(), at_source.std(axis=0, ddof=1), atol=1e-3)
    logits, f, _, _ = reference(spec, windows)
    away = ((f.mean(axis=0) - at_source.mean(axis=0)) ** 2).mean()
    away += ((f.std(axis=0, ddof=1) - at_source.std(axis=0, ddof=1)) ** 2).mean()
    expected = entropy(softmax(logits)).mean() + 3.0 * away
    found = loss_without_labels(look(network, windows, {}), source, 3.0)
    np.testing.assert_allclose(found.item(), expected, rtol=2e-3)


@SPECS
def test_the_gradient_is_the_slope_of_the_loss_in_every_coordinate(spec: NetworkSpec) -> None:
    context = source_for(spec)
    network = Network(copy.deepcopy(context.model).double())
    windows = shifted(spec, 6).double()
    source = source_features(network, context.windows.double())
    affine = {name: network.tensors[name] for name in network.affine}
    _, gradient = affine_gradient(network, windows, affine, source, 2.0)
    flat, p = join(gradient), join(affine)
    for place in range(len(p)):
        step = torch.zeros_like(p)
        step[place] = 1e-6
        high, low = (
            loss_without_labels(look(network, windows, split(p + sign * step, affine)), source, 2.0).item()
            for sign in (1, -1)
        )
        assert flat[place].item() == pytest.approx((high - low) / 2e-6, abs=2e-5, rel=1e-4)


@SPECS
def test_groups_are_strangers_each_with_its_own_parameters(spec: NetworkSpec) -> None:
    context = source_for(spec)
    network = Network(context.model)
    source = source_features(network, context.windows)
    windows = shifted(spec, 12)
    affine = {name: network.tensors[name] for name in network.affine}
    factors = torch.tensor([1.0, 0.5, 1.5])[:, None]
    own = {name: factors * value for name, value in affine.items()}
    together, gradients = affine_gradient(network, windows, own, source, 2.0, groups=3)
    for group in range(3):
        mine = {name: value[group] for name, value in own.items()}
        alone, gradient = affine_gradient(network, windows[4 * group : 4 * group + 4], mine, source, 2.0)
        torch.testing.assert_close(together.logits[4 * group : 4 * group + 4], alone.logits, atol=1e-5, rtol=1e-4)
        for name, value in gradient.items():
            torch.testing.assert_close(gradients[name][group], value, atol=1e-5, rtol=1e-3)
        torch.testing.assert_close(together.means[0][group], alone.means[0][0], atol=1e-5, rtol=1e-4)


@SPECS
def test_a_classifier_of_each_group_s_own_answers_for_it(spec: NetworkSpec) -> None:
    network, windows = Network(source_for(spec).model), shifted(spec, 8)
    weight = network.tensors["head.weight"]
    seen = look(network, windows, {"head.weight": torch.stack((weight, 2 * weight))}, groups=2)
    plain = look(network, windows, {})
    bias = network.tensors["head.bias"]
    torch.testing.assert_close(seen.logits[:4], plain.logits[:4], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(seen.logits[4:] - bias, 2 * (plain.logits[4:] - bias), atol=1e-4, rtol=1e-4)


@SPECS
def test_a_single_window_has_no_deviation_and_gives_a_finite_gradient(spec: NetworkSpec) -> None:
    context = source_for(spec)
    network = Network(context.model)
    source = source_features(network, context.windows)
    affine = {name: network.tensors[name] for name in network.affine}
    seen, gradient = affine_gradient(network, shifted(spec, 1), affine, source, 2.0)
    assert all(torch.isfinite(value).all() for value in gradient.values())
    away = (seen.activations[0, 0] - source.mean).square().mean()
    added = loss_without_labels(seen, source, 1.0) - loss_without_labels(seen, source, 0.0)
    torch.testing.assert_close(added, away[None], atol=1e-4, rtol=1e-4)


def test_the_source_itself_has_no_discrepancy() -> None:
    context = source_for(CONV)
    network = Network(context.model)
    seen = look(network, context.windows, {})
    source = source_features(network, context.windows)
    torch.testing.assert_close(loss_without_labels(seen, source, 50.0), loss_without_labels(seen, source, 0.0))
    assert isinstance(source, SourceFeatures)


def test_the_published_strength_is_rescaled_to_the_number_of_classes() -> None:
    assert discrepancy_weight(1000) == pytest.approx(0.4 * 9216 / 64)
    assert discrepancy_weight(10) == pytest.approx(discrepancy_weight(1000) / 3)


@pytest.mark.parametrize("spec", [CONV, MLP])
def test_logits_without_measuring_are_those_of_a_look_bit_by_bit(spec: NetworkSpec) -> None:
    network, windows = Network(source_for(spec).model), shifted(spec, 8)
    head = network.tensors["head.weight"]
    affine = {name: torch.stack((network.tensors[name], 2 * network.tensors[name])) for name in network.affine}
    for replaced in ({}, affine, {**affine, "head.weight": torch.stack((head, -head))}):
        found = logits_with(network, windows, replaced, groups=2)
        assert torch.equal(found, look(network, windows, replaced, groups=2).logits)
