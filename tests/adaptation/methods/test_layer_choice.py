"""A choice of layers that cannot be meant is refused."""

import pytest
import torch
from torch import Tensor, nn

from acclimate.adaptation.errors import ConfigError, NotAdaptable
from acclimate.adaptation.lean.lean_settings import LeanSettings
from acclimate.adaptation.method import SourceContext
from acclimate.adaptation.methods.iabn import Iabn
from acclimate.adaptation.methods.layer_choice import chosen_layers, first_half, layers_with_time
from acclimate.adaptation.methods.leantta import Leantta
from acclimate.adaptation.model.network import Network


def test_the_first_half_is_never_empty_and_holds_the_middle_layer() -> None:
    assert [sum(first_half(count)) for count in (1, 2, 3, 4, 5)] == [1, 1, 2, 2, 3]
    assert first_half(4) == (True, True, False, False)


@pytest.mark.parametrize(
    ("layers", "message"), [((True,), "expected 2 flags"), ((), "expected 2"), ((False,) * 2, "off")]
)
def test_flags_that_do_not_fit_or_choose_nothing_are_an_error(layers: tuple[bool, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        chosen_layers(layers, 2)


class PooledBetween(nn.Module):
    """A network whose second BatchNorm sees no time."""

    def __init__(self) -> None:
        super().__init__()
        self.early = nn.BatchNorm1d(2)
        self.late = nn.BatchNorm1d(2)
        self.head = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.late(self.early(x).amax(dim=2)))  # type: ignore[no-any-return]


def test_only_layers_that_see_time_count_as_adapted_window_by_window() -> None:
    model, windows = PooledBetween().eval(), torch.ones(4, 2, 8)
    network, context = Network(model), SourceContext(model, windows, torch.zeros(4, dtype=torch.int64))
    assert network.with_time(windows) == (True, False)
    assert layers_with_time(network, windows) == (True, False)
    with pytest.raises(NotAdaptable, match="without a time axis"):
        layers_with_time(network, windows, (False, True))
    with pytest.raises(ConfigError, match="expected 2 flags"):
        layers_with_time(network, windows, (True,))
    both = LeanSettings(tau=0.5, lam=1.0, layers=(True, True))
    for method in (Iabn(context), Leantta(context, both)):
        assert method.adapts == ("early.running_mean", "early.running_var")


@pytest.mark.parametrize(("samples", "expected"), [(1, False), (2, True)])
def test_a_time_axis_of_one_sample_is_none(samples: int, expected: bool) -> None:
    bare = nn.Sequential(nn.BatchNorm1d(2), nn.Flatten(), nn.Linear(2 * samples, 3)).eval()
    assert Network(bare).with_time(torch.ones(4, 2, samples)) == (expected,)
