"""LeanTTA as a method equals the reference; the hybrid recalibrates when, and only as far as, it says."""

import numpy as np
import pytest
import torch

from acclimate.adaptation.errors import ConfigError, NotAdaptable
from acclimate.adaptation.lean.leantta import adapt_batch
from acclimate.adaptation.methods.leantta import Leantta, LeanttaHybrid
from acclimate.adaptation.model.spec import BATCH_NORM_EPS, NetworkSpec
from tests.adaptation.methods.numpy_net import Array, axes, run, shifted, softmax, source_for
from tests.adaptation.tiny_nets import CONV, MLP, ODD, lean, settled


@pytest.mark.parametrize("spec", [CONV, ODD])
@pytest.mark.parametrize("direction", ["target_on_large", "source_on_large"])
def test_the_method_gives_what_leantta_gives(spec: NetworkSpec, direction: str) -> None:
    settings, windows = lean(spec, direction=direction), shifted(spec, 7)
    method = Leantta(source_for(spec), settings)
    expected = torch.softmax(adapt_batch(settled(spec)[0], windows, settings).logits, dim=1)
    torch.testing.assert_close(method.adapt_batch({}, windows)[1].probabilities, expected)
    assert method.stateless


def test_without_settings_the_first_layer_alone_is_adapted() -> None:
    assert Leantta(source_for(ODD)).adapts == ("blocks.0.norm.running_mean", "blocks.0.norm.running_var")


def test_on_rows_without_time_it_is_refused_and_so_is_a_hybrid_that_never_recalibrates() -> None:
    with pytest.raises(NotAdaptable, match="without a time axis"):
        Leantta(source_for(MLP), lean(MLP))
    with pytest.raises(NotAdaptable, match="without a time axis"):
        LeanttaHybrid(source_for(MLP), lean(MLP), momentum=0.0)


def test_a_hybrid_on_rows_without_time_is_the_source_until_its_first_recalibration() -> None:
    windows, hybrid = shifted(MLP, 9), LeanttaHybrid(source_for(MLP), period=6, momentum=0.5)
    found = hybrid.adapt_batch(hybrid.reset(), windows)[1].probabilities
    expected = torch.softmax(settled(MLP)[0](windows), dim=1)
    torch.testing.assert_close(found[:6], expected[:6])
    assert not torch.allclose(found[6:], expected[6:])


@pytest.mark.parametrize("spec", [CONV, ODD])
def test_a_hybrid_before_its_first_recalibration_or_without_momentum_is_lean(spec: NetworkSpec) -> None:
    settings, windows = lean(spec), shifted(spec, 9)
    expected = Leantta(source_for(spec), settings).adapt_batch({}, windows)[1].probabilities
    for period, momentum in ((10, 0.5), (4, 0.0)):
        hybrid = LeanttaHybrid(source_for(spec), settings, period, momentum)
        torch.testing.assert_close(hybrid.adapt_batch(hybrid.reset(), windows)[1].probabilities, expected)


@pytest.mark.parametrize("spec", [CONV, MLP])
def test_after_a_period_the_reference_has_moved_by_the_momentum_towards_it(spec: NetworkSpec) -> None:
    settings, model = lean(spec, tau=0.4, lam=2.0), settled(spec)[0]
    hybrid = LeanttaHybrid(source_for(spec), settings, period=6, momentum=0.25)
    reference: dict[int, tuple[Array, Array]] = {}
    seen: dict[int, Array] = {}

    def rule(index: int, x: Array, mean: Array, var: Array) -> tuple[Array, Array]:
        seen[index] = x
        mean, var = reference.get(index, (mean, var))
        if x.ndim == 2:
            return mean, var
        d = 1 - np.exp(-((0.6 * (x.mean(axis=2) - mean)) ** 2 / (var + BATCH_NORM_EPS)).mean(axis=1))
        gain = 0.6 * d[:, None] ** 2.0  # direction B
        return mean + gain * (x.mean(axis=2) - mean), var + gain * (x.var(axis=2) - var)

    state = hybrid.reset()
    windows = shifted(spec, 14)
    found = []
    for part in torch.split(windows, [2, 3, 8, 1]):  # the third crosses the ends of two periods, at 6 and 12
        state, step = hybrid.adapt_batch(state, part)
        found.append(step)
    expected = []
    for part in torch.split(windows, [6, 6, 2]):
        expected.append(softmax(run(model, part, rule)[0]))
        for index, x in seen.items():
            norm = model.blocks[index].get_submodule("norm")
            source = (norm.running_mean.double().numpy(), norm.running_var.double().numpy())  # type: ignore[operator]
            mean, var = reference.get(index, source)
            now = x.mean(axis=axes(x)), x.var(axis=axes(x))
            reference[index] = mean + 0.25 * (now[0] - mean), var + 0.25 * (now[1] - var)
    np.testing.assert_allclose(torch.cat([s.probabilities for s in found]), np.concatenate(expected), atol=5e-5)
    assert [(s.updates, s.selected) for s in found] == [(0, 0), (0, 0), (2, 12), (0, 0)]
    assert int(state["period/windows"]) == 2


def test_settings_that_cannot_be_kept_are_refused() -> None:
    with pytest.raises(ConfigError, match="threshold"):
        Leantta(source_for(CONV), lean(CONV, threshold=1.0))
    with pytest.raises(ConfigError, match="expected 2 flags"):
        Leantta(source_for(CONV), lean(ODD))
    with pytest.raises(ConfigError, match="period"):
        LeanttaHybrid(source_for(CONV), period=0)
    with pytest.raises(ConfigError, match="momentum"):
        LeanttaHybrid(source_for(CONV), momentum=1.5)
