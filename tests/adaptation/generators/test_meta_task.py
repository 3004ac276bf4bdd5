"""What both ways of teaching share: how harm is measured, and which share of the steps is borne."""

import numpy as np
import pytest
import torch
from torch import Tensor

from acclimate.adaptation.generators.meta_task import ALONE, Judged, MetaTask
from tests.adaptation.tiny_generators import recordings
from tests.adaptation.tiny_nets import trained_on_tones


def logits_of(answers: np.ndarray) -> Tensor:
    return torch.nn.functional.one_hot(torch.from_numpy(answers), 3).float()


def test_harm_is_what_is_lost_in_the_worse_of_both_halves() -> None:
    labels = np.zeros((4, 50), dtype=np.int64)
    source, ours = labels.copy(), labels.copy()
    source[:2, :10] = 1  # 80 % in the first half, 100 % in the second
    ours[2:, :5] = 1  # 100 % and 90 %
    judged = Judged(torch.zeros(4, 50, 1, 1), torch.from_numpy(labels), logits_of(source))
    assert judged.harm(logits_of(ours)) == pytest.approx(0.1)
    assert judged.harm(logits_of(source)) == 0.0
    check = judged.check(3, logits_of(ours))
    assert (check.update, check.accuracy, check.source_accuracy) == (3, pytest.approx(0.95), pytest.approx(0.9))


@pytest.mark.parametrize(
    ("lost", "chosen"),
    [([0.0, 0.0, 0.0], 1.0), ([0.006, 0.004, 0.0], 0.5), ([0.1, 0.1, 0.1], 0.25)],
)
def test_the_largest_share_is_taken_that_costs_at_most_half_a_point_and_else_the_smallest(
    lost: list[float], chosen: float
) -> None:
    task = MetaTask(trained_on_tones()[0], recordings(), 0, "cpu", ALONE)
    harm = dict(zip((1.0, 0.5, 0.25), lost, strict=True))
    asked: list[Tensor] = []

    def answered(windows: Tensor, share: float) -> Tensor:
        asked.append(windows)
        logits = task.network.forward(windows.flatten(0, 1)).logits.unflatten(0, windows.shape[:2])
        worst = logits.argmin(dim=2)[..., None]
        count = round(harm[share] * windows.shape[1]) if harm[share] else 0
        spoilt = torch.rand(windows.shape[:2], generator=torch.Generator().manual_seed(0)).argsort(dim=1) < count
        return torch.where(spoilt[..., None], torch.zeros_like(logits).scatter(2, worst, 1e3), logits)

    share, cost = task.bearable((1.0, 0.5, 0.25), answered, 5)
    assert share == chosen
    assert cost.update == 5
    assert cost.accuracy <= cost.source_accuracy
    known = {window.tobytes() for window in recordings().windows}
    assert all(window.numpy().tobytes() in known for part in asked for window in part.flatten(0, 1))
