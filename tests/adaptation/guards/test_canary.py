"""The canary set: chosen evenly and always the same, with bounds that float64 arithmetic confirms."""

import numpy as np
import pytest
import torch

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.guards.canary import check_canary, choose_canary
from acclimate.adaptation.method import SourceContext
from tests.adaptation.tiny_nets import tones, trained_on_tones


def context(count: int = 300) -> SourceContext:
    windows, labels = tones(count, seed=11)
    order = np.argsort(labels, kind="stable")  # sorted by class: the first 100 would hold one class alone
    return SourceContext(trained_on_tones()[0], torch.from_numpy(windows[order]), torch.from_numpy(labels[order]))


def test_every_class_is_in_the_set_in_about_equal_numbers() -> None:
    canary = choose_canary(context(), 100)
    counts = torch.bincount(canary.labels, minlength=3)
    assert counts.sum() == 100
    assert counts.max() - counts.min() <= 1


def test_the_set_is_always_the_same_and_a_short_source_gives_all_it_has() -> None:
    assert torch.equal(choose_canary(context()).windows, choose_canary(context()).windows)
    assert len(choose_canary(context(40)).windows) == 40


def test_the_source_s_own_answers_pass_with_nothing_lost() -> None:
    canary = choose_canary(context())
    check = check_canary(canary, canary.probabilities)
    assert check.passed
    assert (check.accuracy_drop, check.divergence_nats) == (0.0, 0.0)


def test_drop_and_divergence_are_what_float64_arithmetic_gives() -> None:
    canary = choose_canary(context())
    new = torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(3), 128)).float()
    p, q = canary.probabilities.double().numpy(), new.double().numpy()
    labels = canary.labels.numpy()
    check = check_canary(canary, new)
    assert check.accuracy_drop == pytest.approx((p.argmax(1) == labels).mean() - (q.argmax(1) == labels).mean())
    terms = np.where(p > 0, p * (np.log(np.maximum(p, 1e-45)) - np.log(q)), 0)
    assert check.divergence_nats == pytest.approx(terms.sum(1).mean(), rel=1e-5)
    assert not check.passed


def test_two_windows_of_a_hundred_may_be_lost_and_three_may_not() -> None:
    canary = choose_canary(context(), 100)
    right = torch.nonzero(canary.probabilities.argmax(dim=1) == canary.labels).flatten()
    verdicts = []
    for lost in (2, 3):
        new = canary.probabilities.clone()
        new[right[:lost]] = new[right[:lost]].roll(1, dims=1)
        verdicts.append(check_canary(canary, new, divergence_nats=100.0).passed)
    assert verdicts == [True, False]


@pytest.mark.parametrize("constant", [0, 1, 2])
def test_a_collapsed_model_fails_at_once_with_finite_values(constant: int) -> None:
    canary = choose_canary(context())
    check = check_canary(canary, torch.eye(3)[constant].expand(128, 3))
    assert not check.passed
    assert check.accuracy_drop > 0.5
    assert 1 < check.divergence_nats < 100


def test_answers_that_are_not_finite_never_pass() -> None:
    canary = choose_canary(context())
    assert not check_canary(canary, canary.probabilities * float("nan")).passed


@pytest.mark.parametrize("size", [0, 63, 257])
def test_a_size_out_of_range_is_an_error(size: int) -> None:
    with pytest.raises(ConfigError, match="64 to 256"):
        choose_canary(context(), size)
