"""Views change what they say and nothing else."""

import pytest
import torch

from acclimate.adaptation.alignment.views import Views, channel_dropout, feature_corruption, time_mask
from acclimate.adaptation.errors import ConfigError


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_mask_hides_one_stretch_of_all_channels_of_each_window() -> None:
    units = torch.ones(200, 3, 100)
    masked = time_mask(units, generator())
    hidden = masked == 0
    assert torch.equal(hidden[:, 0], hidden[:, 1])
    lengths = hidden[:, 0].sum(dim=1)
    assert (int(lengths.min()), int(lengths.max())) == (5, 15)
    edges = hidden[:, 0].int().diff(dim=1).abs().sum(dim=1)
    assert int(edges.max()) <= 2  # one stretch
    assert len(hidden[:, 0].float().argmax(dim=1).unique()) > 50


def test_dropout_takes_channels_but_never_all() -> None:
    units = torch.ones(2000, 2, 5)
    dropped = (channel_dropout(units, generator()) == 0).all(dim=2)
    assert not bool(dropped.all(dim=1).any())
    assert float(dropped.float().mean()) == pytest.approx(0.09, abs=0.02)  # 0.1 less the pairs that are spared


def test_corrupted_features_come_from_the_same_feature_of_other_rows() -> None:
    units = torch.arange(50.0)[:, None, None] + 1000 * torch.arange(4.0)[None, :, None]
    corrupted = feature_corruption(units, generator())
    assert torch.equal((corrupted / 1000).floor(), (units / 1000).floor())
    assert float((corrupted != units).float().mean()) == pytest.approx(0.49, abs=0.1)


def test_what_a_task_forbids_is_not_used() -> None:
    assert Views(100).names == ("jitter", "gain", "shift", "mask", "dropout")
    assert Views(100, ["gain", "corruption"]).names == ("jitter", "shift", "mask", "dropout")
    assert Views(1).names == ("corruption",)
    units = torch.randn(8, 3, 40)
    only = Views(40, ["jitter", "gain", "shift", "dropout"]).draw(units, generator())
    assert torch.equal(only, time_mask(units, generator()))


def test_equal_generators_give_equal_views_and_windows_are_left_alone() -> None:
    units = torch.randn(8, 3, 40)
    before = units.clone()
    one, two = Views(40).draw(units, generator()), Views(40).draw(units, generator())
    assert torch.equal(one, two)
    assert torch.equal(units, before)
    assert not torch.equal(one, units)


def test_unknown_kinds_and_an_empty_choice_are_refused() -> None:
    with pytest.raises(ConfigError, match="flip"):
        Views(100, ["flip"])
    with pytest.raises(ConfigError, match="nothing is left"):
        Views(1, ["corruption"])
