"""What lies outside of meta-training, and that nothing slips through by not being a number."""

import math
from dataclasses import replace

import pytest
import torch

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.generators.affine_gradient import Seen, batch_distance
from acclimate.adaptation.generators.valid_range import ValidRange


def seen(means: list[list[float]], variances: list[list[float]]) -> Seen:
    nothing = torch.zeros(1, 1)
    return Seen(
        nothing,
        nothing,
        nothing[None],
        tuple(torch.tensor([layer]) for layer in means),
        tuple(torch.tensor([layer]) for layer in variances),
    )


BATCH = seen([[1.0, 3.0], [2.0]], [[math.e, 1.0], [1.0]])  # layers of 2 and of 1 channels


def test_the_distance_is_the_mean_over_layers_of_the_mean_over_channels() -> None:
    mean, variance = batch_distance(BATCH)
    assert mean.item() == pytest.approx((5.0 + 4.0) / 2)
    assert variance.item() == pytest.approx((0.5 + 0.0) / 2)


@pytest.mark.parametrize(
    ("limits", "share"), [((4.5, 1.0), 1.0), ((9.0, 1.0), 0.5), ((9.0, 0.125), 2.0), ((1.5, 1.0), 3.0)]
)
def test_the_part_that_is_farther_out_decides(limits: tuple[float, float], share: float) -> None:
    mean, variance = batch_distance(BATCH)
    assert ValidRange(*limits).share(float(mean), float(variance)) == pytest.approx(share)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("part", ["means", "variances"])
def test_what_is_not_finite_lies_outside(value: float, part: str) -> None:
    broken = replace(BATCH, **{part: (torch.tensor([[value, 1.0]]), torch.tensor([[1.0]]))})
    mean, variance = batch_distance(broken)
    assert ValidRange(1e9, 1e9).share(float(mean), float(variance)) == math.inf


@pytest.mark.parametrize("limits", [(0.0, 1.0), (1.0, -1.0), (math.nan, 1.0)])
def test_limits_that_nothing_could_keep_are_refused(limits: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="valid range"):
        ValidRange(*limits)
