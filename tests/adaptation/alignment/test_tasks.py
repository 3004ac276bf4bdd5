"""The three tasks against their formulas, and what an encoder that solves one costs."""

import pytest
import torch

from acclimate.adaptation.alignment.align import align
from acclimate.adaptation.alignment.aligned import AlignmentSettings, project
from acclimate.adaptation.alignment.contrastive import ssl_loss
from acclimate.adaptation.alignment.tasks import Task
from acclimate.adaptation.alignment.views import Views, time_mask
from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.model.network import Network
from acclimate.adaptation.model.source_units import SourceUnits
from tests.adaptation.alignment.test_align import source


def task(kind: str) -> tuple[Task, Network]:
    context, _ = source()
    network = Network(context.model)
    settings = AlignmentSettings(task=kind, width=4)  # type: ignore[arg-type]
    return Task(settings, SourceUnits(context), Views(32), lambda some: network.forward(some).features), network


def drawn(made: Task, network: Network, values: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {name: value.detach() for name, value in made.projector(network.features, values).named_parameters()}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(4)


def test_the_contrastive_task_asks_two_views_to_find_each_other() -> None:
    context, _ = source()
    made, network = task("contrastive")
    projector = drawn(made, network, 64)
    windows = context.windows[:20]
    found = made.loss(lambda some: network.forward(some).features, projector, windows, generator())
    draws, units = generator(), SourceUnits(context)
    views = [units.to_raw(Views(32).draw(units.to_units(windows), draws)) for _ in range(2)]
    z1, z2 = (project(projector, network.forward(view).features) for view in views)
    torch.testing.assert_close(found, ssl_loss(z1, z2, 0.2))
    assert projector["2.weight"].shape[0] == 4


def test_the_masked_task_is_scored_where_nothing_was_shown() -> None:
    context, _ = source()
    made, network = task("masked")
    windows = context.windows[:20]
    projector = drawn(made, network, windows[0].numel())
    units = SourceUnits(context)
    scaled = units.to_units(windows)
    hidden = time_mask(torch.ones_like(scaled), generator()) == 0
    shown: list[torch.Tensor] = []

    def encode(some: torch.Tensor) -> torch.Tensor:
        shown.append(units.to_units(some))
        return network.forward(some).features

    found = made.loss(encode, projector, windows, generator())
    torch.testing.assert_close(shown[0], scaled.masked_fill(hidden, 0.0), atol=1e-5, rtol=0)
    given = project(projector, network.forward(units.to_raw(shown[0])).features).reshape(scaled.shape)
    torch.testing.assert_close(found, ((given - scaled) ** 2)[hidden].mean(), atol=1e-5, rtol=1e-5)


def test_the_cross_task_costs_nothing_where_the_frozen_features_are_met() -> None:
    context, _ = source()
    made, network = task("cross")
    identity = torch.eye(network.features)
    projector = {"0.weight": identity, "0.bias": torch.zeros(8), "2.weight": identity, "2.bias": torch.zeros(8)}
    met = made.loss(lambda some: 3 * network.forward(some).features, projector, context.windows[:20], generator())
    assert float(met) == pytest.approx(0.0, abs=1e-5)  # features are not negative, so the ReLU between is no loss
    away = made.loss(lambda some: network.forward(some).features.flip(1), projector, context.windows[:20], generator())
    assert float(away) > 0.05


@pytest.mark.parametrize(("kind", "share"), [("masked", 1.0), ("cross", 0.9)])  # phases are drawn: little can be known
def test_an_encoder_learns_each_task(kind: str, share: float) -> None:
    context, labels = source()
    settings = AlignmentSettings(task=kind, ssl_weight=1.0)  # type: ignore[arg-type]
    short, long = (align(context, labels, settings, epochs) for epochs in (1, 30))
    assert long.ssl_mean < share * short.ssl_mean


def test_a_joint_encoder_is_read_by_its_own_head() -> None:
    context, labels = source()
    joint = align(context, labels, AlignmentSettings(joint=True), 30)
    features = Network(context.model).forward(context.all_windows, joint.encoder).features
    answers = (features @ joint.head["weight"].T + joint.head["bias"]).argmax(dim=1)
    assert float((answers == labels).float().mean()) > 0.95


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(ConfigError, match="rotation"):
        AlignmentSettings(task="rotation")  # type: ignore[arg-type]
