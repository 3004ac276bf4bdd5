"""AETTA: estimate the accuracy of an adapting model without labels, from how its answers bear dropout.

After "AETTA: Label-Free Accuracy Estimation for Test-Time Adaptation", Lee et al., CVPR 2024. With N passes of dropout
over n windows, E the entropy of their mean answer:

    (1) err0 = (passes that answer another class than the plain pass + 1) / (n N + 2)
    (2) w = min(1, (E / E_ref)^3),  at least 1 / max(1000, n N + 2)
    (3) err = min(err0 / w, 1 - 1/K);  smoothed <- 0.6 smoothed + 0.4 err, from err0;  accuracy = 1 - smoothed
    (4) reset if  accuracy < max(0.2, 1.2 / K),  or  mean of the last 5 + 0.02 < mean of the 5 before

Published: err0 without the smoothing of (1), w without bounds, E_ref = ln K, accuracy < 0.2. All four break here, so
these are RECONSTRUCTED. Without (1) a collapsed model whose passes all agree has 0 / w = 0: 100 % accuracy. The bound
of w shrinks with n N because at a fixed 0.001 a collapse seen by more than 1000 passes counts as ever better. A stream
of one class looks like a collapse by ln K, so E_ref is best the entropy of the frozen source's mean answer to the same
windows. At K <= 5 the estimate of a collapsed model, 1 / K, is not below 0.2.

Networks without dropout get it at the input of the head alone. The exponent and the rate were tuned per data set by the
authors: report the estimate always, act on the drop in (4) at most.
"""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from adaptation.errors import ConfigError, DataError

__all__ = ["AettaState", "Estimate", "dropout_answers", "estimate_accuracy"]

_RECENT = 5


@dataclass(frozen=True)
class AettaState:
    """The smoothed error of (3), None before the first batch, and the last 10 accuracies, oldest first."""

    error: float | None = None
    accuracies: tuple[float, ...] = ()


@dataclass(frozen=True)
class Estimate:
    """What one batch gave.

    Attributes:
        batch_error: err of (3), before smoothing.
        accuracy: Estimated, 0 to 1.
        low, drop: The two rules of (4).
    """

    batch_error: float
    accuracy: float
    low: bool
    drop: bool


def dropout_answers(
    features: Tensor, weight: Tensor, bias: Tensor, generator: Generator, passes: int = 10, rate: float = 0.3
) -> Tensor:
    """Return the head's answers (N, n, K) to features (n, F) of which each pass drops some.

    Args:
        features: Input of the head.
        weight, bias: The head's, (K, F) and (K,).
        generator: Source of the masks; nothing global is drawn from.
        passes: N, at least 1. Raising it costs time and steadies the estimate.
        rate: Share that is dropped, 0 to below 1. Raising it makes answers waver sooner.

    Raises:
        ConfigError: A setting is out of range.
    """
    if passes < 1 or not 0 <= rate < 1:
        raise ConfigError(f"dropout: expected at least 1 pass and a rate from 0 to below 1, got {passes} and {rate}")
    kept = torch.rand((passes, *features.shape), generator=generator) >= rate  # (N, n, F)
    return torch.softmax((features * kept / (1 - rate)) @ weight.T + bias, dim=-1)


def estimate_accuracy(
    state: AettaState, probabilities: Tensor, passes: Tensor, source: Tensor | None = None
) -> tuple[AettaState, Estimate]:
    """Take in a batch and return the state after it and the estimate.

    Args:
        state: Of the batch before.
        probabilities: Plain answers (n, K), n at least 1.
        passes: Answers under dropout (N, n, K).
        source: The frozen source's answers to the same windows (n, K), for E_ref; ln K when not given.

    Raises:
        DataError: The shapes do not fit.

    >>> sure = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(64, 4)
    >>> round(estimate_accuracy(AettaState(), sure, sure.expand(10, 64, 4))[1].batch_error, 6)
    0.75
    """
    n, classes = probabilities.shape
    if passes.dim() != 3 or n == 0 or passes.shape[0] == 0 or passes.shape[1:] != probabilities.shape:
        raise DataError(
            f"AETTA: expected answers (n, K) and passes (N, n, K) with n and N at least 1, got "
            f"{tuple(probabilities.shape)} and {tuple(passes.shape)}",
            "wrong_shape",
        )
    seen = passes.shape[0] * n
    other = int((passes.argmax(dim=2) != probabilities.argmax(dim=1)).sum())
    plain = (other + 1) / (seen + 2)  # (1)
    reference = math.log(classes) if source is None else max(_entropy_of_mean(source), 1e-6)
    share = max(0.0, _entropy_of_mean(passes.flatten(0, 1)) / reference)
    weight = max(min(1.0, share**3), 1 / max(1000, seen + 2))  # (2)
    error = min(plain / weight, 1 - 1 / classes)
    smoothed = 0.6 * (plain if state.error is None else state.error) + 0.4 * error  # (3)
    accuracies = (*state.accuracies, 1 - smoothed)[-2 * _RECENT :]
    before, last = accuracies[:_RECENT], accuracies[_RECENT:]
    drop = len(last) == _RECENT and sum(last) / _RECENT + 0.02 < sum(before) / _RECENT  # (4)
    low = 1 - smoothed < max(0.2, 1.2 / classes)
    return AettaState(smoothed, accuracies), Estimate(error, 1 - smoothed, low, drop)


def _entropy_of_mean(rows: Tensor) -> float:
    return float(torch.special.entr(rows.double().mean(dim=0)).sum())
