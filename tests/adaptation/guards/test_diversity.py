"""The diversity guard: finds a collapse within 3 batches, and an idle machine never raises an alarm."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from acclimate.adaptation.errors import ConfigError, DataError
from acclimate.adaptation.guards.diversity import Diversity, DiversityGuard, DiversityLimits


def answers(labels: Tensor, classes: int, confidence: float = 0.95) -> Tensor:
    """Return rows that answer these labels with this confidence."""
    rows = torch.full((len(labels), classes), (1 - confidence) / (classes - 1))
    rows[torch.arange(len(labels)), labels] = confidence
    return rows


def draw(classes: int, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed))


def run(guard: DiversityGuard, batches: list[tuple[Tensor, Tensor]]) -> list[Diversity]:
    state, found = guard.start(), []
    for probabilities, source in batches:
        state, verdict = guard.observe(state, probabilities, source)
        found.append(verdict)
    return found


@pytest.mark.parametrize("confidence", [1.0, 0.7])
@pytest.mark.parametrize("batch_size", [8, 32, 64])
@pytest.mark.parametrize("classes", [2, 6, 100])
def test_a_constant_prediction_is_found_within_3_batches(classes: int, batch_size: int, confidence: float) -> None:
    constant = answers(torch.zeros(batch_size, dtype=torch.int64), classes, confidence)
    batches = [(constant, answers(labels, classes)) for labels in draw(classes, (3, batch_size))]
    assert any(found.alarms for found in run(DiversityGuard(classes), batches))


@pytest.mark.parametrize("classes", [2, 6, 100])
def test_a_collapse_after_a_long_healthy_life_is_found_within_3_batches(classes: int) -> None:
    healthy = [(answers(labels, classes),) * 2 for labels in draw(classes, (40, 32))]
    collapsed = [(answers(torch.ones_like(y), classes), answers(y, classes)) for y in draw(classes, (3, 32), seed=1)]
    found = run(DiversityGuard(classes), [*healthy, *collapsed])
    assert not any(verdict.alarms for verdict in found[:40])
    assert found[-1].alarms


@pytest.mark.parametrize("classes", [2, 6, 100])
def test_at_batch_size_1_a_constant_prediction_is_found_within_50_windows(classes: int) -> None:
    constant = answers(torch.zeros(1, dtype=torch.int64), classes)
    found = run(DiversityGuard(classes), [(constant, answers(y[None], classes)) for y in draw(classes, (50,))])
    assert found[-1].alarms
    assert not found[0].alarms


@pytest.mark.parametrize(("classes", "batch_size", "batches"), [(2, 1, 10_000), (6, 8, 1000), (100, 64, 1000)])
def test_an_idle_stream_of_one_class_and_a_perfect_model_raise_no_alarm(
    classes: int, batch_size: int, batches: int
) -> None:
    guard = DiversityGuard(classes, level=0.95)
    state = guard.start()
    perfect = answers(torch.ones(batch_size, dtype=torch.int64), classes, 0.8)
    slips = torch.rand((batches * batch_size,), generator=torch.Generator().manual_seed(2)) < 0.05  # of the source
    for source in torch.split(answers((~slips).long(), classes, 0.99), batch_size):
        state, found = guard.observe(state, perfect, source)
        assert not found.alarms


def test_a_nearly_flat_softmax_that_answers_like_the_source_is_no_divergence() -> None:
    labels = torch.zeros(64, dtype=torch.int64)
    found = run(DiversityGuard(6), [(answers(labels, 6, 0.2), answers(labels, 6, 1.0))] * 10)
    assert not any(verdict.alarms for verdict in found)


def test_low_diversity_is_no_alarm_and_disagreement_on_an_idle_stream_is() -> None:
    idle = answers(torch.zeros(64, dtype=torch.int64), 6)
    assert run(DiversityGuard(6), [(idle, idle)] * 5)[-1].alarms == ()
    found = run(DiversityGuard(6), [(answers(torch.ones(64, dtype=torch.int64), 6), idle)] * 2)[-1]
    assert found.alarms == ("divergence", "agreement")


def test_a_uniform_answer_is_found_by_its_constant_class() -> None:
    uniform = torch.full((64, 6), 1 / 6)
    found = run(DiversityGuard(6), [(uniform, answers(labels, 6)) for labels in draw(6, (30, 64))])
    assert any("agreement" in verdict.alarms for verdict in found[:3])
    assert found[-1].entropy == pytest.approx(1.0)
    assert found[-1].information_nats == pytest.approx(0.0, abs=1e-6)


def test_the_values_are_what_float64_arithmetic_gives() -> None:
    rng = np.random.default_rng(0)
    classes, memory, prior, level = 4, 20, 5, 0.9
    guard = DiversityGuard(classes, level, DiversityLimits(memory=memory, prior=prior))
    sizes = (1, 3, 8, 30, 2)
    batches = [(rng.dirichlet(np.ones(4), n), rng.dirichlet(np.ones(4), n)) for n in sizes]
    found = run(guard, [(torch.from_numpy(p), torch.from_numpy(q)) for p, q in batches])

    average: dict[str, Any] = {
        "h": np.full(4, 0.25),
        "s": np.full(4, 0.25),
        "p": np.full(4, 0.25),
        "agr": level,
        "e": 0.0,
    }
    weight: float = prior
    for (p, q), verdict in zip(batches, found, strict=True):
        for one, other in zip(p, q, strict=True):
            weight = min(weight + 1, memory)
            new = {
                "h": np.eye(4)[one.argmax()],
                "s": np.eye(4)[other.argmax()],
                "p": one,
                "agr": float(one.argmax() == other.argmax()),
                "e": -(one * np.log(one)).sum(),
            }
            average = {key: value + (new[key] - value) / weight for key, value in average.items()}
        h, s = np.asarray(average["h"]), np.asarray(average["s"])

        def entropy(x: np.ndarray) -> float:
            x = x[x > 0]
            return float(-(x * np.log(x)).sum())

        mixed = 0.95 * s + 0.05 / 4
        assert verdict.diversity == pytest.approx(entropy(h) / math.log(4))
        assert verdict.source_diversity == pytest.approx(entropy(s) / math.log(4))
        kl = sum(a * math.log(a / b) for a, b in zip(h, mixed, strict=True) if a > 0)
        assert verdict.divergence == pytest.approx(max(kl, 0) / math.log(4), abs=1e-12)
        assert verdict.agreement == pytest.approx(average["agr"])
        assert verdict.entropy == pytest.approx(average["e"] / math.log(4))
        assert verdict.information_nats == pytest.approx(entropy(average["p"]) - average["e"])
        assert ("agreement" in verdict.alarms) == bool(average["agr"] < 0.6 * level)


def test_how_a_stream_is_cut_into_batches_does_not_matter() -> None:
    guard, rng = DiversityGuard(3), np.random.default_rng(1)
    p, q = (torch.from_numpy(rng.dirichlet(np.ones(3), 100)) for _ in range(2))
    whole, _ = guard.observe(guard.start(), p, q)
    state = guard.start()
    for size, start in ((1, 0), (9, 1), (64, 10), (26, 74)):
        state, found = guard.observe(state, p[start : start + size], q[start : start + size])
    torch.testing.assert_close(state["averages"], whole["averages"], rtol=0, atol=1e-12)
    assert guard.verdict(state) == found


def test_the_state_given_is_not_written_and_keeps_its_size() -> None:
    guard = DiversityGuard(3)
    state = guard.start()
    before = state["averages"].clone()
    after, _ = guard.observe(state, torch.eye(3), torch.eye(3))
    assert torch.equal(state["averages"], before)
    assert after.keys() == state.keys()
    assert after["averages"].shape == before.shape


def test_nan_is_rejected_and_wrong_shapes_as_well() -> None:
    guard, rows = DiversityGuard(3), torch.eye(3)
    for p, q in ((rows * math.nan, rows), (rows, rows * math.nan)):
        with pytest.raises(DataError, match="finite") as caught:
            guard.observe(guard.start(), p, q)
        assert caught.value.reason == "not_finite"
    for p, q in ((rows[:0], rows[:0]), (rows, rows[:2]), (rows[:, :2], rows[:, :2])):
        with pytest.raises(DataError, match="answers"):
            guard.observe(guard.start(), p, q)


def test_limits_and_levels_out_of_range_are_errors() -> None:
    for limits in ({"diversity_drop": 0.0}, {"divergence": -1.0}, {"agreement": 1.5}, {"prior": 0}, {"memory": 3}):
        with pytest.raises(ConfigError, match="expected"):
            DiversityLimits(**limits)
    for classes, level in ((1, 1.0), (2, 0.0), (2, 1.2)):
        with pytest.raises(ConfigError, match="diversity guard"):
            DiversityGuard(classes, level)


def test_limits_can_be_turned_off() -> None:
    off = DiversityLimits(diversity_drop=math.inf, divergence=math.inf, agreement=0.0)
    constant = answers(torch.zeros(64, dtype=torch.int64), 6)
    found = run(DiversityGuard(6, limits=off), [(constant, answers(labels, 6)) for labels in draw(6, (5, 64))])
    assert not any(verdict.alarms for verdict in found)
