"""The torch networks against independent float64 arithmetic, and their tensors."""

import numpy as np
import pytest
import torch

from acclimate.adaptation.errors import ContractError
from acclimate.adaptation.model.nets import build, from_tensors, to_tensors
from acclimate.adaptation.model.spec import NetworkSpec, expected_tensors
from tests.adaptation.tiny_nets import CONV, MLP, SPECS, settled, windows_for


@pytest.mark.parametrize("spec", SPECS)
def test_the_state_dict_has_exactly_the_tensors_the_spec_announces(spec: NetworkSpec) -> None:
    state = {name: tensor for name, tensor in build(spec).state_dict().items() if "num_batches_tracked" not in name}
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == expected_tensors(spec)
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}


@pytest.mark.parametrize("length", [2, 9, 16])
def test_pooling_differs_in_no_bit_from_torchs_own(length: int) -> None:
    pool = build(CONV).blocks[0].pool
    drawn = torch.randint(-2, 3, (4, 3, length), generator=torch.Generator().manual_seed(0)).float()  # ties among them
    drawn[0, 0, 0] = float("nan")
    asked = torch.randn(4, 3, length // 2, generator=torch.Generator().manual_seed(1))
    found = []
    for each in (pool, torch.nn.MaxPool1d(2)):
        x = drawn.clone().requires_grad_()
        y = each(x)
        found.append((y, *torch.autograd.grad(y[1:], x, asked[1:])))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(ours.detach().numpy(), theirs.detach().numpy())


def test_an_mlp_gives_what_float64_arithmetic_gives() -> None:
    model, _ = settled(MLP)
    windows = windows_for(MLP, 9)
    t = {name: value.astype(np.float64) for name, value in to_tensors(model).items()}
    x = windows[:, :, 0].astype(np.float64)
    x = (np.sign(x) * np.log1p(np.abs(x)) - t["scaling.mean"]) / t["scaling.std"]
    for index in range(2):
        norm = f"blocks.{index}.norm."
        h = x @ t[f"blocks.{index}.map.weight"].T
        h = (h - t[norm + "running_mean"]) / np.sqrt(t[norm + "running_var"] + 1e-5)
        x = np.maximum(h * t[norm + "weight"] + t[norm + "bias"], 0)
    expected = x @ t["head.weight"].T + t["head.bias"]
    np.testing.assert_allclose(model(torch.from_numpy(windows)).numpy(), expected, atol=1e-5)


def test_a_convolutional_net_gives_what_float64_arithmetic_gives() -> None:
    model, _ = settled(CONV)
    windows = windows_for(CONV, 5)
    t = {name: value.astype(np.float64) for name, value in to_tensors(model).items()}
    x = (windows.astype(np.float64) - t["scaling.mean"][:, None]) / t["scaling.std"][:, None]
    for index, kernel in enumerate(CONV.kernels):
        norm = {
            key: t[f"blocks.{index}.norm.{key}"][:, None] for key in ("weight", "bias", "running_mean", "running_var")
        }
        padded = np.pad(x, ((0, 0), (0, 0), (kernel // 2, kernel // 2)))
        views = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=2)  # (n, C, T, kernel)
        h = np.einsum("nctk,ock->not", views, t[f"blocks.{index}.map.weight"])
        h = (h - norm["running_mean"]) / np.sqrt(norm["running_var"] + 1e-5) * norm["weight"] + norm["bias"]
        h = np.maximum(h, 0)[:, :, : h.shape[2] // 2 * 2]
        x = h.reshape(*h.shape[:2], -1, 2).max(axis=3)
    expected = x.mean(axis=2) @ t["head.weight"].T + t["head.bias"]
    np.testing.assert_allclose(model(torch.from_numpy(windows)).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("spec", SPECS)
def test_the_largest_finite_inputs_give_finite_outputs(spec: NetworkSpec) -> None:
    model, _ = settled(spec)
    windows = torch.full((2, spec.channels, spec.length), torch.finfo(torch.float32).max)
    windows[1, :, ::2] *= -1
    assert torch.isfinite(model(windows)).all()


@pytest.mark.parametrize("spec", SPECS)
def test_tensors_taken_out_and_put_back_give_the_same_bits(spec: NetworkSpec) -> None:
    model, _ = settled(spec)
    windows = torch.from_numpy(windows_for(spec, 4))
    assert torch.equal(from_tensors(spec, to_tensors(model))(windows), model(windows))


def test_tensors_that_do_not_fit_are_refused() -> None:
    tensors = to_tensors(settled(CONV)[0])
    with pytest.raises(ContractError, match=r"missing \['head.bias'\]"):
        from_tensors(CONV, {name: value for name, value in tensors.items() if name != "head.bias"})
    with pytest.raises(ContractError, match=r"unknown \['extra'\]"):
        from_tensors(CONV, {**tensors, "extra": tensors["head.bias"]})
    with pytest.raises(ContractError, match=r"head.bias: expected shape \(4,\), found \(5,\)"):
        from_tensors(CONV, {**tensors, "head.bias": np.zeros(5, np.float32)})
