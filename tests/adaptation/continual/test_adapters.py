"""Adapters: every window by its own device's network, against networks that are written out one by one."""

import pytest
import torch
from torch import Tensor, nn

from acclimate.adaptation.continual.adapters import adapted, adapter_names, personal_logits, with_devices
from acclimate.adaptation.model.nets import build
from acclimate.adaptation.model.network import Network
from acclimate.adaptation.model.spec import NetworkSpec

SPECS = [NetworkSpec("mlp", 2, 3, 4, (8, 6)), NetworkSpec("conv1d", 3, 16, 4, (8, 6), (5, 3))]


def settled(spec: NetworkSpec) -> nn.Module:
    """Return a network whose running statistics, gamma and beta are not those of a new one."""
    torch.manual_seed(3)
    model = build(spec)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                module.weight.normal_()
                module.bias.normal_()
    return model.eval()


def differences(network: Network, devices: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(4)
    shapes = {name: network.tensors[name].shape for name in adapter_names(network)}
    return {name: torch.randn(devices, *shape, generator=generator) for name, shape in shapes.items()}


@pytest.mark.parametrize("spec", SPECS)
def test_a_mixed_batch_is_answered_as_by_each_device_s_own_network(spec: NetworkSpec) -> None:
    model = settled(spec)
    network = Network(model)
    own = differences(network, 3)
    shared = {name: value + 0.1 for name, value in model.named_parameters()}
    windows = torch.randn(10, spec.channels, spec.length)
    devices = torch.tensor([0, 2, 1, 1, 0, 2, 2, 2, 0, 1])
    found = personal_logits(network, shared, own, windows, devices)
    for row, device in enumerate(devices.tolist()):
        one = settled(spec)
        one.load_state_dict({**model.state_dict(), **adapted(shared, own, device)})
        torch.testing.assert_close(found[row], one(windows[row][None])[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spec", SPECS)
def test_gradients_of_a_device_come_from_its_windows_alone_and_reach_the_shared_part(spec: NetworkSpec) -> None:
    model = settled(spec)
    network = Network(model)
    own = {name: value.requires_grad_() for name, value in differences(network, 3).items()}
    shared = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
    windows = torch.randn(6, spec.channels, spec.length)
    personal_logits(network, shared, own, windows, torch.tensor([0, 0, 0, 2, 2, 2])).square().sum().backward()
    for value in own.values():
        assert value.grad is not None
        assert not value.grad[1].any()
        assert value.grad[0].any()
        assert value.grad[2].any()
    assert all(value.grad is not None for value in shared.values())


def test_a_device_that_nobody_knows_has_the_shared_network_and_new_rows_change_no_other() -> None:
    network = Network(settled(SPECS[0]))
    own = differences(network, 2)
    shared = {name: network.tensors[name] for name in adapter_names(network)}
    assert all(torch.equal(value, shared[name]) for name, value in adapted(shared, own, 7).items())
    more = with_devices(own, 5)
    for name, value in own.items():
        assert torch.equal(more[name][:2], value)
        assert more[name].shape == (5, *value.shape[1:])
        assert not more[name][2:].any()
    assert all(torch.equal(with_devices(own, 1)[name], value) for name, value in own.items())


def test_what_a_device_has_of_its_own_is_gamma_beta_and_head() -> None:
    kinds = ("weight", "bias")
    layers = ("blocks.0.norm", "blocks.1.norm", "head")
    assert set(adapter_names(Network(settled(SPECS[1])))) == {f"{layer}.{kind}" for layer in layers for kind in kinds}
