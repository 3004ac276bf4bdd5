"""The private copy of a model: same answers, nothing changed, gradients only where they were asked for."""

import copy

import pytest
import torch
from torch import Tensor, nn

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.model.network import Layer, Network, batch_statistics, by_batch, normalise_with
from acclimate.adaptation.model.spec import NetworkSpec
from tests.adaptation.tiny_nets import CONV, MLP, SPECS, settled, windows_for


class Picture(nn.Module):
    """A two-dimensional net, whose BatchNorm has neither gamma nor beta."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)  # defined before the rest: the order of modules is not that of layers
        self.map = nn.Conv2d(2, 4, 3)
        self.norm = nn.BatchNorm2d(4, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.map(x))).mean(dim=(2, 3)))  # type: ignore[no-any-return]


def picture() -> tuple[nn.Module, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Picture()
        windows = torch.randn(6, 2, 5, 7)
        model.train()(windows)
    return model.eval(), windows


def nets() -> list[tuple[nn.Module, Tensor]]:
    return [*((settled(spec)[0], torch.from_numpy(windows_for(spec, 6))) for spec in SPECS), picture()]


@pytest.mark.parametrize("case", range(4))
def test_the_copy_answers_as_the_model_does(case: int) -> None:
    model, windows = nets()[case]
    passed = Network(model).forward(windows)
    torch.testing.assert_close(passed.logits, model(windows), rtol=0, atol=1e-6)
    head = model.get_submodule("head")
    torch.testing.assert_close(passed.logits, head(passed.features), rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", range(4))
def test_batch_statistics_are_those_of_torch_s_training_mode(case: int) -> None:
    model, windows = nets()[case]
    training = copy.deepcopy(model)
    for module in training.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.train()
    passed = Network(model).forward(windows, normalise=by_batch)
    torch.testing.assert_close(passed.logits, training(windows), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", range(4))
def test_nothing_of_the_caller_s_model_changes_and_nothing_stays(case: int) -> None:
    model, windows = nets()[case]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    asked = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    network = Network(model)
    plain = network.forward(windows).logits
    halved = {name: network.tensors[name] / 2 for name in (*network.affine, *network.statistics)}
    changed = network.forward(windows, halved, by_batch).logits
    assert not torch.allclose(changed, plain)
    assert torch.equal(network.forward(windows).logits, plain)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == asked
    shared = {value.data_ptr() for value in network.tensors.values()} & {value.data_ptr() for value in before.values()}
    assert not shared


def test_gradients_flow_into_the_tensors_that_ask_and_into_no_other() -> None:
    network = Network(settled(CONV)[0])
    windows = torch.from_numpy(windows_for(CONV, 6))
    assert not network.forward(windows).logits.requires_grad
    name = network.affine[0]
    gamma = network.tensors[name].clone().requires_grad_()
    logits = network.forward(windows, {name: gamma, "m/other": torch.zeros(1)}, by_batch).logits
    (gradient,) = torch.autograd.grad(logits.square().sum(), [gamma])
    assert gradient.abs().sum() > 0
    assert not any(tensor.requires_grad or tensor.grad is not None for tensor in network.tensors.values())


class Tied(nn.Module):
    """One matrix in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3, bias=False)
        self.again = nn.Linear(3, 3, bias=False)
        self.again.weight = self.first.weight
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.again(self.first(x))))  # type: ignore[no-any-return]


def test_a_tensor_in_two_places_is_replaced_in_both() -> None:
    network = Network(Tied().eval())
    x, eye = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.eye(3)
    expected = network.forward(4 * x, {"first.weight": eye}).logits
    torch.testing.assert_close(network.forward(x, {"first.weight": 2 * eye}).logits, expected)


def test_a_failed_pass_leaves_the_next_one_alone() -> None:
    network, windows = Network(settled(CONV)[0]), torch.from_numpy(windows_for(CONV, 6))
    plain = network.forward(windows).logits

    def broken(layer: Layer, x: Tensor) -> Tensor:
        raise ValueError("broken rule")

    with pytest.raises(ValueError, match="broken rule"):
        network.forward(windows, {network.affine[0]: torch.zeros(6)}, broken)
    assert torch.equal(network.forward(windows).logits, plain)


def test_a_rule_is_told_the_layer_and_the_tensors_in_force() -> None:
    network, seen = Network(settled(CONV)[0]), []

    def watch(layer: Layer, x: Tensor) -> Tensor:
        seen.append((layer.index, tuple(x.shape), float(layer.gamma[0]), float(layer.mean[0]), layer.eps))
        return normalise_with(layer, x, layer.mean, layer.var)

    changed = {"blocks.1.norm.weight": torch.full((7,), 9.0), "blocks.0.norm.running_mean": torch.full((6,), 8.0)}
    network.forward(torch.from_numpy(windows_for(CONV, 2)), changed, watch)
    gamma, mean = (
        float(network.tensors[f"blocks.{i}.norm.{key}"][0]) for i, key in ((0, "weight"), (1, "running_mean"))
    )
    assert seen == [(0, (2, 6, 20), gamma, 8.0, 1e-5), (1, (2, 7, 10), 9.0, mean, 1e-5)]


@pytest.mark.parametrize("spec", [CONV, MLP])
def test_names_are_those_of_the_state_dict(spec: NetworkSpec) -> None:
    network = Network(settled(spec)[0])
    assert network.norms == ("blocks.0.norm", "blocks.1.norm")
    assert network.affine[:2] == ("blocks.0.norm.weight", "blocks.0.norm.bias")
    assert network.statistics[2:] == ("blocks.1.norm.running_mean", "blocks.1.norm.running_var")
    assert (network.head, network.classes, network.features) == ("head", spec.classes, spec.features)
    assert {*network.affine, *network.statistics} <= set(settled(spec)[0].state_dict())


def test_a_single_value_per_channel_has_no_statistics_and_a_window_has() -> None:
    assert batch_statistics(torch.zeros(1, 5)) is None
    assert batch_statistics(torch.zeros(1, 5, 1)) is None
    mean, var = batch_statistics(torch.tensor([[[1.0, 3.0], [5.0, 5.0]]])) or (None, None)
    assert mean is not None
    assert var is not None
    assert (mean.tolist(), var.tolist()) == ([2.0, 5.0], [1.0, 0.0])


def test_statistics_of_each_window_are_used_for_that_window() -> None:
    x, one = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0)), torch.ones(2)
    layer = Layer(0, 0 * one, one, one, 0 * one, 0.0)
    mean, var = x.mean(dim=2), x.var(dim=2, correction=0)
    each = torch.cat([normalise_with(layer, x[i : i + 1], mean[i], var[i]) for i in range(4)])
    torch.testing.assert_close(normalise_with(layer, x, mean, var), each)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(2, 2)).eval(), "no BatchNorm layer"),
        (nn.Sequential(nn.Conv1d(2, 2, 1), nn.BatchNorm1d(2)).eval(), r"no nn\.Linear"),
        (nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2)), "in training mode"),
        (nn.Sequential(nn.BatchNorm1d(2, track_running_stats=False), nn.Linear(2, 2)).eval(), "no source statistics"),
    ],
)
def test_a_network_that_cannot_be_adapted_is_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Network(model)
