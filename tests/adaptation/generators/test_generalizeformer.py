"""The transformer that gives parameters: what must hold before, during and after it has learned anything."""

import numpy as np
import pytest
import torch

from acclimate.adaptation.errors import ConfigError, NotAdaptable
from acclimate.adaptation.generators.affine_gradient import affine_gradient, look, source_features
from acclimate.adaptation.generators.generalizeformer import (
    GeneralizeFormer,
    GeneralizeFormerSettings,
    Tokens,
    generated_tensors,
    named,
    targets,
    tokens_of,
)
from acclimate.adaptation.model.network import Network
from acclimate.adaptation.model.spec import NetworkSpec
from tests.adaptation.methods.numpy_net import shifted, source_for
from tests.adaptation.tiny_generators import disturbed
from tests.adaptation.tiny_nets import CONV, MLP, ODD

SPECS = pytest.mark.parametrize("spec", [CONV, ODD, MLP])
WIDTH = 16


def tokens(
    spec: NetworkSpec, windows: torch.Tensor, groups: int = 1, classifier: bool = False
) -> tuple[Network, Tokens]:
    context = source_for(spec)
    network = Network(context.model)
    source = source_features(network, context.windows)
    start = {name: value.expand(groups, *value.shape) for name, value in generated_tensors(network, classifier).items()}
    seen, gradients = affine_gradient(network, windows, start, source, 0.0, groups)
    return network, tokens_of(network, seen, gradients, source, WIDTH, classifier)


def drawn(classifier: bool = False, seed: int = 0) -> GeneralizeFormer:
    module = GeneralizeFormer(GeneralizeFormerSettings(classifier=classifier), WIDTH)
    module.load_state_dict(disturbed(module, seed, 0.05))
    return module.requires_grad_(False).eval()


@SPECS
@pytest.mark.parametrize("classifier", [False, True])
def test_untrained_it_gives_the_source_s_own_parameters(spec: NetworkSpec, classifier: bool) -> None:
    network, made = tokens(spec, shifted(spec, 10), classifier=classifier)
    generated = named(GeneralizeFormer(GeneralizeFormerSettings(classifier), WIDTH)(made), network, classifier)
    assert set(generated) == set(network.affine) | ({"head.weight"} if classifier else set())
    for name, value in generated.items():
        assert torch.equal(value[0], network.tensors[name])


@SPECS
@pytest.mark.parametrize("classifier", [False, True])
def test_what_is_masked_is_not_looked_at(spec: NetworkSpec, classifier: bool) -> None:
    network, made = tokens(spec, shifted(spec, 10), classifier=classifier)
    former = drawn(classifier)
    noise, hidden = 1e3, 1 - made.mask
    other = made._replace(
        parameters=made.parameters + noise * hidden,
        gradients=made.gradients + noise * hidden,
        residuals=made.residuals + noise * hidden,
        features=made.features + noise * (1 - made.feature_mask),
    )
    assert hidden.sum() > 0
    for name, value in named(former(made), network, classifier).items():
        torch.testing.assert_close(named(former(other), network, classifier)[name], value)


@SPECS
def test_the_order_of_windows_and_a_doubled_batch_change_nothing(spec: NetworkSpec) -> None:
    windows, former = shifted(spec, 10), drawn()
    _, made = tokens(spec, windows)
    for same in (windows.flip(0), torch.cat((windows, windows))):
        torch.testing.assert_close(former(tokens(spec, same)[1]), former(made), atol=1e-4, rtol=1e-3)


@SPECS
def test_a_neighbour_does_change_what_is_generated(spec: NetworkSpec) -> None:
    windows, former = shifted(spec, 10), drawn()
    changed = windows.clone()
    changed[3] *= 2
    assert not torch.allclose(former(tokens(spec, windows)[1]), former(tokens(spec, changed)[1]), atol=1e-5)


@SPECS
def test_batches_side_by_side_are_strangers(spec: NetworkSpec) -> None:
    windows, former = shifted(spec, 12), drawn(classifier=True)
    _, together = tokens(spec, windows, groups=2, classifier=True)
    for group in range(2):
        _, alone = tokens(spec, windows[6 * group : 6 * group + 6], classifier=True)
        torch.testing.assert_close(former(together)[group], former(alone)[0], atol=1e-4, rtol=1e-3)


@SPECS
def test_the_residual_that_is_shown_is_what_a_batchnorm_refresh_would_do(spec: NetworkSpec) -> None:
    windows = shifted(spec, 10)
    network, made = tokens(spec, windows)
    plan = targets(network, classifier=False)
    first = {plan[i].name: made.parameters[i, : plan[i].width] + made.residuals[0, i, : plan[i].width] for i in (0, 1)}
    refreshed = look(network, windows, first)  # source statistics, changed parameters
    width = plan[0].width
    seen = refreshed.activations[0, :, :width]
    gamma, beta = (network.tensors[plan[i].name] for i in (0, 1))
    if spec.kind == "mlp":  # with batch statistics a layer's output has mean beta and deviation gamma
        np.testing.assert_allclose(seen.mean(dim=0).numpy(), beta.numpy(), atol=1e-4)
        np.testing.assert_allclose(seen.std(dim=0, correction=0).numpy(), gamma.abs().numpy(), atol=1e-2)
    else:
        np.testing.assert_allclose(seen.mean(dim=0).numpy(), beta.numpy(), atol=1e-4)


def test_gradients_are_shown_without_their_scale_and_the_scale_beside_them() -> None:
    context = source_for(CONV)
    network = Network(context.model)
    source = source_features(network, context.windows)
    start = {name: value[None] for name, value in generated_tensors(network, False).items()}
    seen, gradients = affine_gradient(network, shifted(CONV, 8), start, source, 0.0)
    made, larger = (
        tokens_of(network, seen, {name: factor * g for name, g in gradients.items()}, source, WIDTH, False)
        for factor in (1.0, 1000.0)
    )
    torch.testing.assert_close(made.gradients, larger.gradients, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(made.magnitudes + 3, larger.magnitudes, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("setting", "part"),
    [("gradients", "gradients"), ("features", "features"), ("features", "residuals"), ("parameters", "parameters")],
)
def test_an_ablation_does_not_look_at_what_it_goes_without(setting: str, part: str) -> None:
    _, made = tokens(CONV, shifted(CONV, 10))
    other = made._replace(**{part: torch.zeros_like(getattr(made, part))})
    blind = GeneralizeFormer(GeneralizeFormerSettings(**{setting: False}), WIDTH)  # type: ignore[arg-type]
    blind.load_state_dict(disturbed(blind, 0, 0.05))
    steps = [blind(each) - each.parameters for each in (made, other)]
    torch.testing.assert_close(steps[0], steps[1], atol=1e-5, rtol=0)
    seeing = drawn()
    assert not torch.allclose(*(seeing(each) - each.parameters for each in (made, other)), atol=1e-4)


def test_a_network_that_is_too_wide_is_refused_and_a_narrower_one_is_taken() -> None:
    context = source_for(ODD)
    network = Network(context.model)
    source = source_features(network, context.windows)
    start = {name: value[None] for name, value in generated_tensors(network, False).items()}
    seen, gradients = affine_gradient(network, shifted(ODD, 8), start, source, 0.0)
    with pytest.raises(NotAdaptable, match="12 numbers, the network has one of 13"):
        tokens_of(network, seen, gradients, source, 12, False)
    assert tokens_of(network, seen, gradients, source, 40, False).mask.shape == (6, 40)


def test_fewer_than_two_windows_are_no_batch() -> None:
    with pytest.raises(ConfigError, match="least_windows"):
        GeneralizeFormerSettings(least_windows=1)
