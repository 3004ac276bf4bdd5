"""FOA: the whole population against one numpy pass per candidate, and whether it undoes a gain and an offset."""

from typing import Any

import numpy as np
import pytest
import torch

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.method import SourceContext
from acclimate.adaptation.methods.cma_es import cma_ask
from acclimate.adaptation.methods.foa import Foa
from acclimate.adaptation.model.nets import to_tensors
from acclimate.adaptation.model.spec import BATCH_NORM_EPS, NetworkSpec
from acclimate.adaptation.state.random_state import resumed
from tests.adaptation.methods.numpy_net import Array, axes, entropy, run, shifted, softmax, source_for
from tests.adaptation.tiny_nets import SPECS, settled, tones, trained_on_tones


def watched(spec: NetworkSpec, windows: torch.Tensor) -> tuple[Array, Array, list[tuple[Array, Array]]]:
    """Return logits, features, and mean and deviation at each layer in its own units, from source statistics."""
    seen = []

    def rule(_: int, x: Array, mean: Array, var: Array) -> tuple[Array, Array]:
        scale = 1 / np.sqrt(var + BATCH_NORM_EPS)
        seen.append(((x.mean(axis=axes(x)) - mean) * scale, x.std(axis=axes(x)) * scale))
        return mean, var

    logits, features = run(settled(spec)[0], windows, rule)
    return logits, features, seen


def moved(spec: NetworkSpec, windows: torch.Tensor, candidate: Array) -> torch.Tensor:
    """Return raw windows whose inside is exp(log gain) u + offset."""
    t = {name: value.astype(np.float64) for name, value in to_tensors(settled(spec)[0]).items()}
    mean, std = t["scaling.mean"][:, None], t["scaling.std"][:, None]
    x = windows.numpy().astype(np.float64)
    x = np.sign(x) * np.log1p(np.abs(x)) if spec.transform == "signedlog" else x
    log_gain, offset = np.split(candidate[:, None], 2)
    x = (np.exp(log_gain) * (x - mean) / std + offset) * std + mean
    return torch.from_numpy(np.sign(x) * np.expm1(np.abs(x)) if spec.transform == "signedlog" else x)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("discrepancy_weight", [0.4, 0.01])
def test_the_best_of_the_population_answers_with_shifted_features(spec: NetworkSpec, discrepancy_weight: float) -> None:
    context = source_for(spec)
    method = Foa(context, discrepancy_weight=discrepancy_weight)
    state: Any = method.reset()
    head = settled(spec)[0].head.weight.detach().numpy().astype(np.float64)
    _, source_features, source_seen = watched(spec, context.windows)
    mean_source = source_features.mean(axis=0)
    weight = discrepancy_weight * 9216 / sum(spec.widths) * np.log(spec.classes) / np.log(1000)
    average, best = mean_source, np.zeros(2 * spec.channels)
    for seed in range(3):
        windows = shifted(spec, 7, seed)
        sampled = cma_ask(state, method._population, resumed(state["generator"])).numpy()
        results = []
        for candidate in (best, *sampled):
            logits, features, seen = watched(spec, moved(spec, windows, candidate))
            logits = logits + (mean_source - average) @ head.T
            away = sum(
                ((m - m_s) ** 2).sum() + ((s - s_s) ** 2).sum()
                for (m, s), (m_s, s_s) in zip(seen, source_seen, strict=True)
            )
            p = softmax(logits)
            results.append((entropy(p).sum() + weight * 7 / 64 * away, p, features.mean(axis=0), candidate))
        _, p, features, best = min(results, key=lambda result: result[0])
        state, step = method.adapt_batch(state, windows)
        average = 0.9 * average + 0.1 * features
        np.testing.assert_allclose(state["best"], best, atol=1e-12)
        np.testing.assert_allclose(step.probabilities, p, atol=2e-4)
        np.testing.assert_allclose(state["feature_mean"], average, atol=1e-4)


def test_a_gain_and_an_offset_are_found_and_undone() -> None:
    model, _ = trained_on_tones()
    windows, labels = (torch.from_numpy(array) for array in tones(384, seed=9))
    context = SourceContext(model, windows[:128], labels[:128])
    changed = torch.tensor([[0.8], [1.2]]) * windows + torch.tensor([[2.0], [2.0]])
    with torch.no_grad():
        before = float((model(changed).argmax(dim=1) == labels).float().mean())
    method = Foa(context)
    state = method.reset()
    for start in range(0, 384, 16):
        state, _ = method.adapt_batch(state, changed[start : start + 16])
    _, step = method.adapt_batch(state, changed)
    after = float((step.probabilities.argmax(dim=1) == labels).float().mean())
    assert before < 0.4
    assert after > 0.9


@pytest.mark.parametrize("spec", SPECS)
def test_a_single_window_is_answered_and_the_search_goes_on(spec: NetworkSpec) -> None:
    method = Foa(source_for(spec))
    start = method.reset()
    state, step = method.adapt_batch(start, shifted(spec, 1))
    assert torch.isfinite(step.probabilities).all()
    assert not torch.equal(state["cma/mean"], start["cma/mean"])
    assert method.adapts == ()


@pytest.mark.parametrize("setting", [{"population": 3}, {"sigma": 0.0}, {"memory": 1.5}])
def test_settings_out_of_range_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Foa(source_for(SPECS[0]), **setting)
