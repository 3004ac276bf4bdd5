"""AETTA: a collapsed model is not scored as perfect, which the published formula does."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from adaptation.errors import ConfigError, DataError
from adaptation.guards.aetta import AettaState, dropout_answers, estimate_accuracy


def balanced(n: int, classes: int) -> Tensor:
    return torch.eye(classes).repeat(n // classes + 1, 1)[:n]


@pytest.mark.parametrize(("n", "passes"), [(6, 10), (60, 10), (600, 20)])
def test_agreeing_passes_with_a_uniform_mean_have_nearly_no_error(n: int, passes: int) -> None:
    rows = balanced(n, 6)
    _, found = estimate_accuracy(AettaState(), rows, rows.expand(passes, n, 6))
    assert 0 < found.batch_error < 2 / (n * passes)


@pytest.mark.parametrize("classes", [2, 6, 100])
@pytest.mark.parametrize(("n", "passes"), [(8, 10), (64, 10), (512, 20)])
def test_a_constant_confident_prediction_has_the_error_of_chance(n: int, passes: int, classes: int) -> None:
    rows = torch.eye(classes)[:1].expand(n, classes)
    _, found = estimate_accuracy(AettaState(), rows, rows.expand(passes, n, classes))
    assert found.batch_error == pytest.approx(1 - 1 / classes)


@pytest.mark.parametrize("classes", [2, 3, 6, 100])
def test_a_collapse_is_below_the_lower_limit_in_the_end_and_health_is_not(classes: int) -> None:
    for rows, low in ((torch.eye(classes)[:1].expand(400, classes), True), (balanced(400, classes), False)):
        state = AettaState()
        for _ in range(12):
            state, found = estimate_accuracy(state, rows, rows.expand(10, 400, classes))
        assert found.low == low


def test_an_idle_stream_is_no_collapse_when_the_source_says_the_same() -> None:
    rows = torch.tensor([[0.97, 0.01, 0.02]]).expand(64, 3)
    passes = rows.expand(10, 64, 3)
    assert estimate_accuracy(AettaState(), rows, passes)[1].batch_error > 0.1
    assert estimate_accuracy(AettaState(), rows, passes, source=rows)[1].batch_error < 2 / 640


def test_the_estimate_is_what_float64_arithmetic_gives() -> None:
    rng = np.random.default_rng(0)
    state, smoothed = AettaState(), None
    for _ in range(3):
        p, q = rng.dirichlet(np.ones(4) * 0.3, 20), rng.dirichlet(np.ones(4) * 0.3, (5, 20))
        state, found = estimate_accuracy(state, torch.from_numpy(p), torch.from_numpy(q))
        plain = ((q.argmax(2) != p.argmax(1)).sum() + 1) / (100 + 2)
        mean = q.reshape(-1, 4).mean(0)
        error = min(plain / (-(mean * np.log(mean)).sum() / math.log(4)) ** 3, 0.75)
        smoothed = 0.6 * (plain if smoothed is None else smoothed) + 0.4 * error
        assert found.batch_error == pytest.approx(error)
        assert found.accuracy == pytest.approx(1 - smoothed)


def test_a_drop_of_more_than_two_points_over_five_batches_is_seen_once_ten_are_there() -> None:
    rows, drops = balanced(60, 3), []
    state = AettaState()
    for batch in range(14):
        wavering = rows.clone()
        if batch >= 7:
            wavering[:20] = rows[:20].roll(1, dims=1)
        state, found = estimate_accuracy(state, rows, wavering.expand(10, 60, 3))
        drops.append(found.drop)
    assert drops == [False] * 9 + [True] * 5
    assert len(state.accuracies) == 10


def test_dropout_keeps_the_mean_of_features_and_is_the_same_for_the_same_seed() -> None:
    features, weight, bias = (
        torch.ones(50, 40),
        torch.full((2, 40), 0.01) * torch.tensor([[1.0], [-1.0]]),
        torch.zeros(2),
    )
    before = torch.get_rng_state()
    found, again = (
        dropout_answers(features, weight, bias, torch.Generator().manual_seed(1), passes=20) for _ in range(2)
    )
    assert torch.equal(found, again)
    assert torch.equal(torch.get_rng_state(), before)
    logit = torch.log(found[..., 0] / found[..., 1])
    assert logit.mean().item() == pytest.approx(0.8, abs=0.02)
    assert logit.std().item() == pytest.approx(0.02 * math.sqrt(40 * 0.3 / 0.7), rel=0.1)
    plain = dropout_answers(features, weight, bias, torch.Generator(), passes=1, rate=0.0)[0]
    torch.testing.assert_close(plain, torch.softmax(features @ weight.T + bias, dim=1))


def test_wrong_shapes_and_settings_are_errors() -> None:
    rows = balanced(6, 3)
    for p, q in ((rows, rows), (rows, rows.expand(2, 6, 3)[:, :5]), (rows[:0], rows[:0].expand(2, 0, 3))):
        with pytest.raises(DataError, match="AETTA"):
            estimate_accuracy(AettaState(), p, q)
    for settings in ({"passes": 0}, {"rate": 1.0}):
        with pytest.raises(ConfigError, match="dropout"):
            dropout_answers(rows, torch.ones(3, 3), torch.ones(3), torch.Generator(), **settings)
