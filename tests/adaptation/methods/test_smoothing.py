"""Smoothing, worked in float64 one window at a time."""

import numpy as np
import pytest
import torch

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.methods.smoothing import Smoothing
from tests.adaptation.methods.numpy_net import run, shifted, softmax, source_for
from tests.adaptation.tiny_nets import CONV, settled


def test_an_answer_is_the_weighted_mean_of_the_source_s_answers_so_far() -> None:
    method, windows = Smoothing(source_for(CONV), half_life_windows=3), shifted(CONV, 12)
    _, step = method.adapt_batch(method.reset(), windows)
    p = softmax(run(settled(CONV)[0], windows)[0])
    for place, found in enumerate(step.probabilities.numpy()):
        weights = 2.0 ** (-(place - np.arange(place + 1)) / 3)
        np.testing.assert_allclose(found, weights @ p[: place + 1] / weights.sum(), atol=1e-5)


def test_the_first_answer_is_the_source_s() -> None:
    method, window = Smoothing(source_for(CONV)), shifted(CONV, 1)
    expected = torch.softmax(settled(CONV)[0](window), dim=1)
    torch.testing.assert_close(method.adapt_batch(method.reset(), window)[1].probabilities, expected)


def test_no_window_is_answered_from_a_later_one_and_batches_may_be_cut_anywhere() -> None:
    method, windows = Smoothing(source_for(CONV)), shifted(CONV, 10)
    _, whole = method.adapt_batch(method.reset(), windows)
    state, parts = method.reset(), []
    for part in (windows[:1], windows[1:7], windows[7:]):
        state, step = method.adapt_batch(state, part)
        parts.append(step.probabilities)
    torch.testing.assert_close(torch.cat(parts), whole.probabilities)


@pytest.mark.parametrize("half_life", [0.0, -1.0, float("nan"), float("inf")])
def test_a_half_life_that_is_none_is_refused(half_life: float) -> None:
    with pytest.raises(ConfigError, match="half_life_windows"):
        Smoothing(source_for(CONV), half_life)
