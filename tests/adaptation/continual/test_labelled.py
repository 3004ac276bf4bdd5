"""Labelled windows stay with their labels and devices, however they are taken."""

import torch

from acclimate.adaptation.continual.labelled import Labelled, joined

ROWS = Labelled(torch.arange(5.0)[:, None, None], torch.arange(5) + 10, torch.arange(5) + 20)


def assert_whole(rows: Labelled) -> None:
    assert torch.equal(rows.windows[:, 0, 0].long() + 10, rows.labels)
    assert torch.equal(rows.labels + 10, rows.devices)


def test_rows_stay_together() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = ROWS.draw(40, generator)
    assert len(drawn) == 40
    assert set(drawn.labels.tolist()) == {10, 11, 12, 13, 14}
    both = joined(ROWS.take(slice(-2, None)), ROWS.take(ROWS.labels < 12), drawn)
    assert both.labels[:4].tolist() == [13, 14, 10, 11]
    for rows in (drawn, both):
        assert_whole(rows)


def test_the_last_of_few_rows_are_all_of_them() -> None:
    assert torch.equal(ROWS.take(slice(-9, None)).labels, ROWS.labels)
