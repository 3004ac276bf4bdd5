"""LeanTTA: the invariants of the method, with expected values from the paper's steps in float64 numpy."""

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.lean.lean_settings import LeanSettings
from acclimate.adaptation.lean.leantta import adapt_batch, lean_batch_norm
from acclimate.adaptation.model.nets import to_tensors
from tests.adaptation.tiny_nets import CONV, MLP, lean, settled, windows_for

EPS = 1e-5
DIRECTIONS = ("target_on_large", "source_on_large")
Array = npt.NDArray[Any]


def layer(seed: int = 0, channels: int = 5, samples: int = 12, count: int = 7) -> dict[str, Tensor]:
    """Return input and parameters of one BatchNorm layer."""
    rng = np.random.default_rng(seed)
    values = {
        "x": rng.standard_normal((count, channels, samples)) * rng.uniform(0.3, 3, (count, channels, 1))
        + rng.standard_normal((count, channels, 1)),
        "mean": rng.standard_normal(channels),
        "var": rng.uniform(0.2, 3, channels),
        "gamma": rng.uniform(0.5, 1.5, channels),
        "beta": rng.standard_normal(channels),
    }
    return {name: torch.from_numpy(value.astype(np.float32)) for name, value in values.items()}


def normalised(values: dict[str, Tensor], **changes: Any) -> tuple[Array, Array, Array]:
    """Run the code under test on one layer."""
    defaults = {"tau": 0.4, "lam": 1.0, "direction": DIRECTIONS[0], "normalize_by_channels": True, "eps": EPS}
    arguments: dict[str, Any] = {**values, **defaults, **changes}
    y, distance, gain = lean_batch_norm(**arguments)
    return y.numpy(), distance.numpy(), gain.numpy()


def by_the_paper(
    values: dict[str, Tensor], tau: float, lam: float, direction: str, normalize_by_channels: bool
) -> tuple[Array, Array, Array]:
    """Follow steps 1 to 5 literally, one window at a time, in float64; gain from the mean's displacement."""
    v = {name: value.numpy().astype(np.float64) for name, value in values.items()}
    ys, ds, gains = [], [], []
    for x in v["x"]:
        mean_t, var_t = x.mean(axis=1), x.var(axis=1)
        mean_b = tau * v["mean"] + (1 - tau) * mean_t
        var_b = tau * v["var"] + (1 - tau) * var_t
        terms = (mean_b - v["mean"]) ** 2 / (v["var"] + EPS)
        d = 1 - np.exp(-(terms.mean() if normalize_by_channels else terms.sum()))
        w = d**lam if direction == "source_on_large" else 1 - d**lam
        mean_new, var_new = w * v["mean"] + (1 - w) * mean_b, w * v["var"] + (1 - w) * var_b
        scale = v["gamma"] / np.sqrt(var_new + EPS)
        ys.append((x - mean_new[:, None]) * scale[:, None] + v["beta"][:, None])
        ds.append(d)
        gains.append(np.dot(mean_new - v["mean"], mean_t - v["mean"]) / np.sum((mean_t - v["mean"]) ** 2))
    return np.stack(ys), np.array(ds), np.array(gains)


def source_output(values: dict[str, Tensor]) -> Array:
    """Return plain BatchNorm with source statistics, float64."""
    v = {name: value.numpy().astype(np.float64)[..., None] for name, value in values.items()}
    y: Array = (v["x"][..., 0] - v["mean"]) / np.sqrt(v["var"] + EPS) * v["gamma"] + v["beta"]
    return y


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("by_channels", [True, False])
@pytest.mark.parametrize("tau", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("lam", [0.25, 1.0, 3.0])
def test_every_step_gives_what_the_paper_gives_in_float64(
    direction: str, by_channels: bool, tau: float, lam: float
) -> None:
    values = layer()
    expected = by_the_paper(values, tau, lam, direction, by_channels)
    found = normalised(values, tau=tau, lam=lam, direction=direction, normalize_by_channels=by_channels)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-5)


def test_one_window_worked_by_hand() -> None:
    # mu_t = 2, var_t = 1, tau = 1/2: mu_b = 1, var_b = 1, D = 1, d = 1 - 1/e, B: a = d / 2
    one, zero = torch.ones(1), torch.zeros(1)
    y, d, a = lean_batch_norm(
        torch.tensor([[[1.0, 3.0]]]), zero, one, one, zero, 0.0,
        tau=0.5, lam=1.0, direction="target_on_large", normalize_by_channels=False,
    )  # fmt: skip
    assert d.item() == pytest.approx(0.6321206)
    assert a.item() == pytest.approx(0.3160603)
    assert y.flatten().tolist() == pytest.approx([1 - 0.6321206, 3 - 0.6321206])


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("lam", [0.1, 1.0, 10.0])
def test_tau_one_is_the_source_model(direction: str, lam: float) -> None:
    values = layer()
    y, distance, gain = normalised(values, tau=1.0, lam=lam, direction=direction)
    np.testing.assert_allclose(y, source_output(values), rtol=1e-5, atol=1e-5)
    assert not distance.any()
    assert not gain.any()


def test_small_lambda_in_direction_a_is_the_source_and_large_lambda_a_fixed_blend() -> None:
    values = layer()
    y, _, gain = normalised(values, direction="source_on_large", lam=1e-7)
    np.testing.assert_allclose(y, source_output(values), rtol=1e-4, atol=1e-4)
    assert gain.max() < 1e-5
    _, distance, gain = normalised(values, direction="source_on_large", lam=1e4, tau=0.4)
    assert distance.max() < 0.99
    np.testing.assert_allclose(gain, 0.6, rtol=1e-6)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_window_with_source_mean_and_variance_is_left_alone(direction: str) -> None:
    values = layer()
    x = values["x"]
    standard = (x - x.mean(2, keepdim=True)) / x.std(2, keepdim=True, correction=0)
    values["x"] = standard * values["var"].sqrt()[:, None] + values["mean"][:, None]
    y, distance, _ = normalised(values, direction=direction, tau=0.0)
    np.testing.assert_allclose(y, source_output(values), atol=1e-5)
    assert distance.max() < 1e-10


def test_a_shift_of_variance_alone_is_full_gain_in_a_and_none_in_b() -> None:
    values = layer()
    values["x"] = (values["x"] - values["x"].mean(2, keepdim=True)) * 9 + values["mean"][:, None]
    assert normalised(values, direction="source_on_large")[2] == pytest.approx(0.6, rel=1e-5)
    assert normalised(values, direction="target_on_large")[2] == pytest.approx(0.0, abs=1e-5)


@given(
    tau=st.floats(0, 1),
    lam=st.floats(0.05, 10),
    direction=st.sampled_from(DIRECTIONS),
    by_channels=st.booleans(),
    scale=st.floats(0, 1e4),
)
def test_distance_and_gain_stay_in_their_ranges(
    tau: float, lam: float, direction: str, by_channels: bool, scale: float
) -> None:
    values = layer()
    values["x"] = values["x"] * scale
    y, distance, gain = normalised(
        values, tau=tau, lam=lam, direction=direction, normalize_by_channels=by_channels
    )  # fmt: skip
    assert np.isfinite(y).all()
    assert ((distance >= 0) & (distance <= 1)).all()  # 1 only by rounding
    assert ((gain >= 0) & (gain <= np.float32(1 - tau) + 1e-7)).all()


@pytest.mark.parametrize(("direction", "sign"), [("target_on_large", 1), ("source_on_large", -1)])
def test_gain_grows_with_the_distance_in_b_and_falls_in_a(direction: str, sign: int) -> None:
    values = layer(count=1)
    centred = values["x"] - values["x"].mean(2, keepdim=True) + values["mean"][:, None]
    values["x"] = torch.cat([centred + offset for offset in torch.linspace(0, 3, 40)])
    _, distance, gain = normalised(values, direction=direction)
    assert (np.diff(distance) >= 0).all()
    assert (np.diff(gain) * sign >= 0).all()
    assert np.ptp(gain) > 0.3


def test_order_in_time_does_not_matter_to_the_statistics() -> None:
    values = layer()
    shuffled = {**values, "x": values["x"][:, :, torch.randperm(12, generator=torch.Generator().manual_seed(0))]}
    for one, other in zip(normalised(values)[1:], normalised(shuffled)[1:], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_pure_instance_statistics_cancel_gain_and_offset() -> None:
    values = layer()
    options = {"tau": 0.0, "direction": "source_on_large", "lam": 1e6, "normalize_by_channels": True}
    calm = {**values, "x": values["x"] * 0.1 + values["mean"][:, None]}  # small D, so that w = d^lambda = 0
    moved = {**values, "x": values["x"] * 0.2 + values["mean"][:, None] + 0.05}
    assert normalised(calm, **options)[2].min() == normalised(moved, **options)[2].min() == 1.0
    np.testing.assert_allclose(normalised(calm, **options)[0], normalised(moved, **options)[0], atol=5e-3)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_window_has_the_same_output_whatever_its_neighbours_and_their_order(direction: str) -> None:
    model, _ = settled(CONV)
    windows = torch.from_numpy(windows_for(CONV, 40))
    settings = lean(CONV, direction=direction)
    whole = adapt_batch(model, windows, settings)
    singles = [adapt_batch(model, window[None], settings) for window in windows]
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    shuffled = adapt_batch(model, windows[order], settings)
    for name in ("logits", "distance", "gain"):
        one = torch.cat([getattr(single, name) for single in singles])
        np.testing.assert_allclose(getattr(whole, name), one, rtol=0, atol=1e-6)
        np.testing.assert_allclose(getattr(shuffled, name), one[order], rtol=0, atol=1e-6)


def test_nothing_is_remembered_and_the_model_is_never_changed() -> None:
    model, _ = settled(CONV)

    def state_digest() -> str:
        return hashlib.sha256(b"".join(value.numpy().tobytes() for value in model.state_dict().values())).hexdigest()

    before = state_digest()
    windows = torch.from_numpy(windows_for(CONV, 20))
    first = adapt_batch(model, windows, lean(CONV)).logits
    adapt_batch(model, windows * 50, lean(CONV))
    assert torch.equal(adapt_batch(model, windows, lean(CONV)).logits, first)
    assert state_digest() == before
    assert not first.requires_grad
    assert all(not module._forward_hooks for module in model.modules())


def test_a_forward_pass_that_fails_leaves_no_hook_behind() -> None:
    model, _ = settled(CONV)
    with pytest.raises(RuntimeError):
        adapt_batch(model, torch.zeros(1, 99, 20), lean(CONV))
    assert all(not module._forward_hooks for module in model.modules())


def test_a_layer_that_is_off_equals_its_convolution_with_batch_norm_folded_in() -> None:
    model, _ = settled(CONV)
    windows = torch.from_numpy(windows_for(CONV, 6))
    settings = lean(CONV, layers=(True, False))
    t = {name: torch.from_numpy(value) for name, value in to_tensors(model).items()}
    norm = {key: t[f"blocks.1.norm.{key}"] for key in ("weight", "bias", "running_mean", "running_var")}
    scale = norm["weight"] / torch.sqrt(norm["running_var"] + EPS)
    scaled = model.scaling(windows)
    first, _, _ = lean_batch_norm(
        model.blocks[0].get_submodule("map")(scaled), t["blocks.0.norm.running_mean"], t["blocks.0.norm.running_var"],
        t["blocks.0.norm.weight"], t["blocks.0.norm.bias"], EPS,
        tau=0.3, lam=1.0, direction="target_on_large", normalize_by_channels=True,
    )  # fmt: skip
    x = nn.functional.max_pool1d(torch.relu(first), 2)
    bias = norm["bias"] - norm["running_mean"] * scale
    x = nn.functional.conv1d(x, t["blocks.1.map.weight"] * scale[:, None, None], bias, padding=1)
    expected = model.head(nn.functional.max_pool1d(torch.relu(x), 2).mean(dim=2))
    found = adapt_batch(model, windows, settings)
    np.testing.assert_allclose(found.logits, expected, rtol=1e-5, atol=1e-5)
    assert not found.gain[:, 1].any()
    assert found.gain[:, 0].all()


def test_rows_without_a_time_axis_are_answered_by_the_source_and_the_result_says_so() -> None:
    model, _ = settled(MLP)
    rows = torch.from_numpy(windows_for(MLP, 8))
    result = adapt_batch(model, rows, lean(MLP))
    assert torch.equal(result.logits, model(rows))
    assert not result.applicable
    assert not result.gain.any()
    assert adapt_batch(settled(CONV)[0], torch.from_numpy(windows_for(CONV, 2)), lean(CONV)).applicable


def test_anyone_s_network_works_and_batch_norm_2d_as_well() -> None:
    image_net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, affine=False), nn.Flatten(), nn.Linear(4 * 9, 2)
    ).eval()
    images = 5 + torch.randn(6, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    settings = LeanSettings(tau=0.0, lam=1.0, layers=(True,), normalize_by_channels=False)
    result = adapt_batch(image_net, images, settings)
    with torch.no_grad():
        maps = image_net[0](images).flatten(2)
        values = {
            "x": maps,
            "mean": torch.zeros(4),
            "var": torch.ones(4),
            "gamma": torch.ones(4),
            "beta": torch.zeros(4),
        }
        y, distance, _ = by_the_paper(values, 0.0, 1.0, "target_on_large", False)
        expected = image_net[3](torch.from_numpy(y).float().flatten(1))
    np.testing.assert_allclose(result.logits, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(result.distance[:, 0].numpy(), distance, rtol=1e-4)


@pytest.mark.parametrize(
    ("network", "layers", "message"),
    [
        (nn.Sequential(nn.Linear(2, 2)).eval(), (True,), "no BatchNorm layer"),
        (nn.Sequential(nn.BatchNorm1d(2)).train(), (True,), "training mode"),
        (nn.Sequential(nn.BatchNorm1d(2, track_running_stats=False)).eval(), (True,), "no source statistics"),
        (nn.Sequential(nn.BatchNorm1d(2)).eval(), (True, True), "expected 1 flags"),
        (nn.Sequential(nn.BatchNorm1d(2)).eval(), (False,), "every flag is off"),
    ],
)
def test_a_network_or_layer_set_that_would_adapt_nothing_is_an_error(
    network: nn.Module, layers: tuple[bool, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        adapt_batch(network, torch.zeros(1, 2, 4), LeanSettings(tau=0.5, lam=1.0, layers=layers))
