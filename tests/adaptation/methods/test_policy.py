"""The policy: what opens its gate, what takes a rung back, and that a decision can be followed without it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from acclimate.adaptation.engine.engine import Engine, engine_parameters
from acclimate.adaptation.engine.export import export_adapted, export_source
from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.lean.lean_settings import LeanSettings
from acclimate.adaptation.method import State, state_bytes
from acclimate.adaptation.methods.catalogue import make_method
from acclimate.adaptation.methods.policy import PERIOD, Policy, answer
from acclimate.adaptation.methods.policy_settings import RUNGS, PolicySettings, Rung
from acclimate.adaptation.model.nets import to_tensors
from acclimate.adaptation.model.spec import NetworkSpec
from tests.adaptation.methods.numpy_net import run, shifted, source_for
from tests.adaptation.tiny_nets import CONV, MLP, SPECS, settled, windows_for

ALWAYS = PolicySettings("statistics", False, 1.0, 1.0, pseudo_windows=20.0, weak=False)
ADAPTING = tuple(rung for rung in RUNGS if rung != "source")


def always(rung: Rung) -> PolicySettings:
    return replace(ALWAYS, rung=rung)


def streamed(
    policy: Policy, windows: torch.Tensor, size: int, state: State | None = None
) -> tuple[State, torch.Tensor]:
    state = policy.reset() if state is None else state
    answers = []
    for part in torch.split(windows, size):
        state, step = policy.adapt_batch(state, part)
        answers.append(step.probabilities)
    return state, torch.cat(answers)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("rung", ADAPTING)
def test_a_worker_that_follows_the_decision_on_onnx_runtime_answers_the_same(spec: NetworkSpec, rung: Rung) -> None:
    policy = Policy(source_for(spec), always(rung))
    state, _ = streamed(policy, shifted(spec, 4 * PERIOD), 16)
    decision = policy.decision(state)
    assert decision.rung == rung
    model, calibration = settled(spec)
    tensors = to_tensors(model)
    lean = policy.lean if rung == "leantta" else replace(policy.lean, tau=1.0)
    graphs = export_source(tensors, spec, calibration), export_adapted(tensors, spec, lean)
    followed = tensors | {name: value.numpy() for name, value in decision.tensors.items()}
    engine = Engine(*graphs, engine_parameters(followed, spec, lean), lean)
    windows = shifted(spec, PERIOD, seed=3)
    expected = policy.adapt_batch(state, windows)[1].probabilities
    torch.testing.assert_close(answer(policy.network, decision, windows, policy.lean), expected)
    np.testing.assert_allclose(engine.run(windows.numpy()).adapted_probabilities, expected, atol=2e-5)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("rung", ADAPTING)
def test_batches_of_one_and_of_many_windows_get_the_same_answers(spec: NetworkSpec, rung: Rung) -> None:
    policy, windows = Policy(source_for(spec), always(rung)), shifted(spec, 30)
    (one, single), (many, batched) = streamed(policy, windows, 1), streamed(policy, windows, 30)
    torch.testing.assert_close(single, batched, atol=2e-5, rtol=1e-4)
    assert int(one["windows"]) == int(many["windows"]) == 30 // PERIOD * PERIOD
    assert state_bytes(one) == state_bytes(policy.reset())


def test_the_first_period_of_a_device_is_the_sources() -> None:
    policy, windows = Policy(source_for(CONV), ALWAYS), shifted(CONV, 2 * PERIOD)
    _, answers = streamed(policy, windows, 2 * PERIOD)
    source = torch.softmax(settled(CONV)[0](windows), dim=1)
    torch.testing.assert_close(answers[:PERIOD], source[:PERIOD])
    assert not torch.allclose(answers[PERIOD:], source[PERIOD:], atol=1e-3)


@pytest.mark.parametrize("spec", [CONV, MLP])
def test_the_gate_is_the_distance_of_all_windows_and_256_of_the_source(spec: NetworkSpec) -> None:
    policy = Policy(source_for(spec), replace(ALWAYS, gated=True, mean_limit=0.5, variance_limit=2.0))
    windows = shifted(spec, 5 * PERIOD)
    state, _ = streamed(policy, windows, 7)
    seen = {}

    def rule(index: int, x: np.ndarray, mean: np.ndarray, var: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if index == 0:
            values = np.moveaxis(x, 1, 0).reshape(x.shape[1], -1)
            count, total = len(x), len(x) + 256
            new_mean = (256 * mean + count * values.mean(axis=1)) / total
            second = (256 * (var + mean**2) + count * (values**2).mean(axis=1)) / total
            seen["mean"] = (((new_mean - mean) ** 2) / (var + 1e-5)).mean()
            seen["var"] = (np.log((second - new_mean**2 + 1e-5) / (var + 1e-5)) ** 2).mean()
        return mean, var

    run(settled(spec)[0], windows, rule)
    np.testing.assert_allclose(policy.distances(state), (seen["mean"], seen["var"]), rtol=1e-3)
    np.testing.assert_allclose(policy.decision(state).gate, max(seen["mean"] / 0.5, seen["var"] / 2.0), rtol=1e-3)


def test_inside_the_range_of_source_devices_the_source_answers_and_outside_the_rung() -> None:
    gated = replace(ALWAYS, gated=True)
    windows = shifted(CONV, 3 * PERIOD)
    probe = Policy(source_for(CONV), gated)
    reached = probe.gate(streamed(probe, windows, 8)[0])
    source = torch.softmax(settled(CONV)[0](windows), dim=1)
    for factor, verdict in ((2.0, "inside the range"), (0.01, "outside the range")):
        limit = reached * factor
        policy = Policy(source_for(CONV), replace(gated, mean_limit=limit, variance_limit=limit))
        state, answers = streamed(policy, windows, 8)
        assert policy.decision(state).verdict == verdict
        assert torch.allclose(answers, source, atol=1e-5) == (verdict == "inside the range")
        assert bool(policy.decision(state).tensors) == (verdict == "outside the range")


def test_a_rung_that_disagrees_more_than_any_source_device_of_its_age_is_taken_back_and_may_return() -> None:
    policy = Policy(source_for(CONV), replace(ALWAYS, agreement_limits=(0.9, 0.5, 0.0, 0.0, 0.0)))
    windows = windows_one_class()[:PERIOD]
    verdicts = {}
    for age, agreed in ((24, 0.0), (32, 0.89), (32, 0.91), (64, 0.49), (64, 0.51)):
        before = torch.tensor(age - PERIOD)
        # (4) closed: what is left of the past is what a period of full agreement brings the average to `agreed`
        kept, seen = (255 / 256) ** PERIOD, 1 - (255 / 256) ** age
        past = torch.tensor((agreed * seen - (1 - kept)) / kept, dtype=torch.float64)
        state = {**policy.reset(), "windows": before, "pending/agreement": past, "verdict": torch.tensor(4)}
        state, step = policy.adapt_batch(state, windows)
        assert policy.decision(state).agreement == pytest.approx(agreed, abs=1e-6)
        assert step.resets == (policy.decision(state).verdict == "agreement")
        verdicts[age, agreed] = policy.decision(state).verdict
    assert [pair for pair, verdict in verdicts.items() if verdict == "agreement"] == [(32, 0.89), (64, 0.49)]
    assert set(verdicts.values()) == {"agreement", "proven"}
    back = torch.tensor(0.9, dtype=torch.float64)
    taken = {**state, "windows": torch.tensor(512), "pending/agreement": back, "verdict": torch.tensor(5)}
    state, step = policy.adapt_batch(taken, windows_one_class()[: 2 * PERIOD])
    assert [receipt["verdict"] for receipt in step.receipts] == ["agreement", "proven"]


def test_the_running_agreement_is_the_exponentially_weighted_share_of_windows_answered_alike() -> None:
    policy, windows = Policy(source_for(CONV), ALWAYS), shifted(CONV, 5 * PERIOD)
    state, same = policy.reset(), []
    for window in torch.split(windows, 1):  # in the first period the rung still has the source's statistics
        state, step = policy.adapt_batch(state, window)
        same.append(float(step.probabilities.argmax() == settled(CONV)[0](window).argmax()))
    weights = (255 / 256) ** np.arange(len(same))[::-1]
    assert 0 < np.mean(same) < 1
    assert policy.agreement(state) == pytest.approx(np.average(same, weights=weights), abs=1e-6)


def test_a_rung_that_collapses_to_one_class_while_the_source_does_not_is_taken_back() -> None:
    policy = Policy(source_for(CONV), ALWAYS)
    state, _ = streamed(policy, shifted(CONV, 2 * PERIOD), 8)
    averages = state["averages"].clone()
    classes = CONV.classes
    averages[:classes] = torch.eye(classes, dtype=averages.dtype)[0]
    averages[classes : 2 * classes] = 1 / classes
    state, step = policy.adapt_batch({**state, "averages": averages}, shifted(CONV, PERIOD))
    assert (policy.decision(state).verdict, step.resets) == ("diversity", 1)
    windows = shifted(CONV, 4)
    expected = torch.softmax(settled(CONV)[0](windows), dim=1)
    torch.testing.assert_close(policy.adapt_batch(state, windows)[1].probabilities, expected)


def test_where_nothing_may_adapt_the_source_always_answers_and_the_gate_is_still_reported() -> None:
    policy, windows = Policy(source_for(CONV), always("source")), shifted(CONV, 3 * PERIOD)
    state, answers = streamed(policy, windows, 5)
    torch.testing.assert_close(answers, torch.softmax(settled(CONV)[0](windows), dim=1))
    decision = policy.decision(state)
    assert (decision.rung, decision.verdict, dict(decision.tensors)) == ("source", "source", {})
    assert decision.gate > 0
    assert policy.adapts == ()


def test_receipts_name_rung_gate_limit_and_verdict_of_every_stretch() -> None:
    policy = Policy(source_for(CONV), replace(ALWAYS, gated=True, mean_limit=1e-6))
    _, step = policy.adapt_batch(policy.reset(), shifted(CONV, 2 * PERIOD + 3))
    assert [receipt["windows"] for receipt in step.receipts] == [PERIOD, PERIOD, 3]
    assert [receipt["verdict"] for receipt in step.receipts] == ["first period", *["outside the range"] * 2]
    assert [receipt["rung"] for receipt in step.receipts] == ["source", "statistics", "statistics"]
    first, second, third = step.receipts
    assert first["tensors"] is None
    assert second["tensors"] != third["tensors"]
    assert second["limit"] == 1.0
    assert float(str(second["gate"])) > 1.0
    json.dumps(step.receipts, allow_nan=False)


def test_windows_that_no_sensor_sends_get_the_sources_answer_and_leave_no_trace() -> None:
    policy, clean = Policy(source_for(CONV), ALWAYS), shifted(CONV, 2 * PERIOD)
    wild = clean[:3].clone()
    wild[0, 0, 0], wild[1] = torch.nan, wild[1] * 1e6
    wild[2, 1] = torch.inf
    expected, answers = streamed(policy, clean, 5)
    state, step = policy.adapt_batch(policy.reset(), torch.cat([clean[:PERIOD], wild, clean[PERIOD:]]))
    assert bool(torch.isfinite(step.probabilities).all())
    assert (step.receipts[-1]["windows"], step.receipts[-1]["verdict"]) == (3, "input refused")
    torch.testing.assert_close(torch.cat([step.probabilities[:PERIOD], step.probabilities[PERIOD + 3 :]]), answers)
    for name, value in expected.items():
        torch.testing.assert_close(state[name], value, msg=name)


def test_a_policy_without_settings_and_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="policy_calibration"):
        make_method("policy", source_for(CONV))
    for wrong in ({"rung": "magic"}, {"mean_limit": 0.0}, {"agreement_limits": (0.5,)}, {"pseudo_windows": 0.0}):
        with pytest.raises(ConfigError, match="expected"):
            replace(ALWAYS, **wrong)  # type: ignore[arg-type]


def test_leantta_inside_the_policy_is_the_default_of_the_project() -> None:
    assert Policy(source_for(CONV), ALWAYS).lean == LeanSettings.for_layers(CONV.layers)


def windows_one_class() -> torch.Tensor:
    """Windows like the source's, where statistics hardly move and both answer the same."""
    return torch.from_numpy(windows_for(CONV, 3 * PERIOD, seed=1))
