"""Augmentation: what each kind does to a window, who is left alone, and what is refused."""

import numpy as np
import pytest
import torch
from torch import Tensor

from acclimate.adaptation.data.augment import AUGMENTATIONS, Augmentation, augment, parse_augmentation
from acclimate.adaptation.data.corruptions import EVALUATION, TUNING
from acclimate.adaptation.errors import ConfigError


def drawn(windows: Tensor, kind: str, strength: float = 1.0, clean_share: float = 0.0, seed: int = 0) -> Tensor:
    return augment(windows, Augmentation((kind,), strength, clean_share), torch.Generator().manual_seed(seed))


def test_training_uses_kinds_of_the_tuning_half_alone() -> None:
    assert set(AUGMENTATIONS) <= set(TUNING)
    assert not set(AUGMENTATIONS) & set(EVALUATION)


def test_a_gain_is_one_factor_per_window_and_channel_with_the_declared_spread() -> None:
    windows = torch.randn(4000, 2, 5)
    logs = torch.log(drawn(windows, "gain", strength=2.0) / windows)  # (n, C, L)
    np.testing.assert_allclose(logs.numpy(), logs[:, :, :1].expand_as(logs).numpy(), atol=1e-4)
    assert float(logs[:, :, 0].std()) == pytest.approx(0.6, rel=0.05)
    assert abs(float(torch.corrcoef(logs[:, :, 0].T)[0, 1])) < 0.05


def test_an_offset_is_one_number_per_window_and_channel_in_standard_deviations() -> None:
    windows = torch.randn(4000, 2, 5)
    added = drawn(windows, "offset", strength=0.5) - windows
    np.testing.assert_allclose(added.numpy(), added[:, :, :1].expand_as(added).numpy(), atol=1e-5)
    assert float(added[:, :, 0].std()) == pytest.approx(0.25, rel=0.05)


def test_noise_is_drawn_per_sample() -> None:
    added = drawn(torch.zeros(200, 3, 50), "noise")
    assert float(added.std()) == pytest.approx(0.15, rel=0.05)
    assert abs(float((added[:, :, 1:] * added[:, :, :-1]).mean())) < 0.001


def test_a_rotation_turns_each_triple_rigidly_about_the_mean_reading() -> None:
    windows = torch.randn(50, 6, 7, dtype=torch.float32)
    turned = drawn(windows, "rotation")
    for axes in (slice(0, 3), slice(3, 6)):
        before, after = windows[:, axes].double(), turned[:, axes].double()
        gram = before.transpose(1, 2) @ before  # lengths and angles between samples
        np.testing.assert_allclose((after.transpose(1, 2) @ after).numpy(), gram.numpy(), atol=1e-4)
    np.testing.assert_array_equal(drawn(torch.zeros(2, 3, 4), "rotation").numpy(), 0.0)
    basis = torch.eye(3).expand(300, 3, 3)
    matrices = drawn(basis, "rotation", strength=0.25).double()
    angles = np.degrees(np.arccos(np.clip((np.trace(matrices.numpy(), axis1=1, axis2=2) - 1) / 2, -1, 1)))
    assert 40 < angles.max() <= 45.1
    np.testing.assert_allclose(np.linalg.det(matrices.numpy()), 1.0, atol=1e-5)


def test_the_clean_share_stays_as_recorded_and_every_other_window_has_a_draw_of_its_own() -> None:
    windows = torch.ones(2000, 1, 4)
    before = windows.clone()
    out = drawn(windows, "offset", clean_share=0.2)
    assert torch.equal(windows, before)
    values = out[:, 0, 0]
    assert float((values == 1.0).double().mean()) == pytest.approx(0.2, abs=0.03)
    changed = values[values != 1.0]
    assert torch.unique(changed).numel() > 0.99 * changed.numel()


def test_equal_generators_draw_equally_and_the_global_state_is_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    windows = torch.ones(8, 3, 4)
    recipe = Augmentation(AUGMENTATIONS)
    one, two = (augment(windows, recipe, torch.Generator().manual_seed(9)) for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(torch.rand(2), expected)


def test_tabular_rows_and_a_batch_of_one_are_augmented() -> None:
    out = augment(torch.ones(1, 5, 1), Augmentation(("gain", "offset", "noise"), 1, 0.0), torch.Generator())
    assert out.shape == (1, 5, 1)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("recipe", [Augmentation(("gain", "offset"), 0.5), Augmentation(("rotation",), 2)])
def test_a_recipe_is_read_back_from_its_own_text(recipe: Augmentation) -> None:
    assert parse_augmentation(str(recipe)) == recipe
    assert parse_augmentation(str(recipe).replace("+", ",")) == recipe


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "expected some of gain, offset"),
        ("gain,swap", "expected some of gain, offset"),
        ("gain,gain", "each once"),
        ("gain:often", r"KIND\+KIND:STRENGTH"),
        ("gain:0", "above 0 to 4"),
        ("gain:nan", "above 0 to 4"),
        ("gain:9", "above 0 to 4"),
    ],
)
def test_what_is_no_recipe_is_refused(text: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        parse_augmentation(text)


def test_out_of_range_shares_and_channels_without_axes_are_refused() -> None:
    with pytest.raises(ConfigError, match="clean_share"):
        Augmentation(("gain",), 1.0, 1.0)
    with pytest.raises(ConfigError, match="8 channels are none"):
        augment(torch.ones(2, 8, 4), Augmentation(("rotation",)), torch.Generator())
