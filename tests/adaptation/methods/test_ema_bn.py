"""Moving statistics, against float64 with explicit second moments."""

import numpy as np
import pytest
import torch

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.methods.ema_bn import EmaBatchNorm
from acclimate.adaptation.model.spec import NetworkSpec
from tests.adaptation.methods.numpy_net import Array, axes, run, shifted, softmax, source_for
from tests.adaptation.tiny_nets import CONV, MLP, SPECS, settled


@pytest.mark.parametrize("spec", SPECS)
def test_first_and_second_moments_are_averaged_and_the_batch_is_answered_with_them(spec: NetworkSpec) -> None:
    method, model = EmaBatchNorm(source_for(spec), momentum=0.05), settled(spec)[0]
    state = method.reset()
    kept: dict[int, tuple[Array, Array]] = {}  # mean and mean square per layer
    for part in torch.split(shifted(spec, 12), [1, 8, 3]):
        share = 1 - 0.95 ** len(part)

        def rule(index: int, x: Array, mean: Array, var: Array, share: float = share) -> tuple[Array, Array]:
            first, second = kept.get(index, (mean, var + mean**2))
            first = (1 - share) * first + share * x.mean(axis=axes(x))
            second = (1 - share) * second + share * (x**2).mean(axis=axes(x))
            kept[index] = first, second
            return first, second - first**2

        state, step = method.adapt_batch(state, part)
        np.testing.assert_allclose(step.probabilities, softmax(run(model, part, rule)[0]), atol=2e-5)
    for index, (first, second) in kept.items():
        np.testing.assert_allclose(state[f"blocks.{index}.norm.running_mean"], first, atol=1e-4)
        np.testing.assert_allclose(state[f"blocks.{index}.norm.running_var"], second - first**2, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spec", [CONV, MLP])
def test_a_stream_of_single_windows_moves_the_first_layer_as_far_as_its_batches(spec: NetworkSpec) -> None:
    method, windows = EmaBatchNorm(source_for(spec), momentum=1e-4), shifted(spec, 32)
    batched, _ = method.adapt_batch(method.reset(), windows)
    single = method.reset()
    for window in windows:
        single, _ = method.adapt_batch(single, window[None])
    for name in method.adapts[:2]:  # deeper layers see what the first made of each batch
        moved = batched[name] - method.reset()[name]
        np.testing.assert_allclose(single[name] - method.reset()[name], moved, rtol=0.02, atol=2e-5)


def test_no_momentum_is_the_source() -> None:
    method, windows = EmaBatchNorm(source_for(CONV), momentum=0.0), shifted(CONV, 8)
    state, step = method.adapt_batch(method.reset(), windows)
    torch.testing.assert_close(step.probabilities, torch.softmax(settled(CONV)[0](windows), dim=1))
    assert all(torch.equal(state[name], value) for name, value in method.reset().items())


@pytest.mark.parametrize("momentum", [-0.1, 1.1, float("nan")])
def test_a_momentum_that_is_no_share_is_refused(momentum: float) -> None:
    with pytest.raises(ConfigError, match="momentum"):
        EmaBatchNorm(source_for(CONV), momentum)
