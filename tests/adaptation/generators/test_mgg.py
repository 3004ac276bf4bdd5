"""The learned optimizer against float64 numpy and automatic differentiation, and what must hold whatever it learned."""

import numpy as np
import numpy.typing as npt
import pytest
import torch

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.generators.mgg import HIDDEN, Mgg, MggSettings, memory_step, moments_start, moments_step
from tests.adaptation.tiny_generators import disturbed

Array = npt.NDArray[np.float64]
PAPER = MggSettings(zero_correction=False)


def drawn(settings: MggSettings = PAPER, seed: int = 0) -> Mgg:
    module = Mgg(settings).double()
    module.load_state_dict(disturbed(module, seed, 0.3))
    return module.requires_grad_(False)


def inputs(count: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def normal(z: Array, scale: Array, shift: Array) -> Array:
    deviation = z - z.mean(axis=-1, keepdims=True)
    return np.asarray(deviation / np.sqrt((deviation**2).mean(axis=-1, keepdims=True) + 1e-6) * scale + shift)


def one_step(w: dict[str, Array], x: Array, memory: Array, bias: Array) -> tuple[float, Array, Array]:
    """Follow one coordinate through the paper's equations; the memory's gradient by central differences."""
    q, k, v = w["query"] @ x, w["key"] @ x, w["value"] @ x
    eta = max(1 + float(w["rate_offset"]), 0.0) / (1 + np.exp(-(x @ w["rate_weight"] + w["rate_bias"]))) / 8

    def loss(flat: Array) -> float:
        read = normal(k @ flat[:-1] + flat[-1], w["inner_scale"], w["inner_shift"])
        return float(0.5 * ((read - (v - k)) ** 2).sum())

    joined = np.concatenate((memory, bias[None]))
    slope = np.zeros_like(joined)
    for place in np.ndindex(joined.shape):
        step = np.zeros_like(joined)
        step[place] = 1e-5
        slope[place] = (loss(joined + step) - loss(joined - step)) / 2e-5
    new = joined - eta * slope
    z = q + normal(q @ new[:-1] + new[-1], w["inner_scale"], w["inner_shift"])
    return float(np.tanh(w["out"] @ normal(z, w["post_scale"], w["post_shift"]))), new[:-1], new[-1]


def test_three_steps_equal_the_equations_worked_out_in_numpy() -> None:
    mgg = drawn()
    w = {name: value.numpy() for name, value in mgg.state_dict().items()}
    memory = mgg.start(3)
    by_hand = [(w["memory_weight"], w["memory_bias"])] * 3
    for seed in range(3):
        x = inputs(3, seed)
        u, memory = mgg(x, memory)
        for index in range(3):
            expected, *rest = one_step(w, x[index].numpy(), *by_hand[index])
            by_hand[index] = (rest[0], rest[1])
            assert u[index].item() == pytest.approx(expected, abs=1e-7)
            np.testing.assert_allclose(memory["W"][index].numpy(), rest[0], atol=1e-7)


def test_moments_have_the_published_exponents_so_that_a_first_gradient_gives_0_7425_and_1_4107() -> None:
    _, x = moments_step(moments_start((2,)), torch.tensor([3.0, -0.01]))
    np.testing.assert_allclose(x.numpy(), [[0.7425, 1.4107], [-0.7425, -1.4107]], atol=1e-4)


@pytest.mark.parametrize("layer_norm", [True, False])
def test_the_write_is_the_gradient_of_the_memory_s_loss(layer_norm: bool) -> None:
    generator = torch.Generator().manual_seed(3)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    memory = {"W": random(4, 8, 8).requires_grad_(), "b": random(4, 8).requires_grad_()}
    k, target, scale, shift = random(4, 8), random(4, 8), random(8), random(8)
    z = torch.einsum("pi,pij->pj", k, memory["W"]) + memory["b"]
    read = torch.nn.functional.layer_norm(z, (8,), scale, shift, 1e-6) if layer_norm else z
    loss = 0.5 * (read - target).square().sum(dim=1)
    slopes = torch.autograd.grad(loss.sum(), list(memory.values()))
    eta = torch.full((4, 1), 1e-3, dtype=torch.float64)
    old = {name: value.detach() for name, value in memory.items()}
    new = memory_step(old, k, target, eta, scale, shift, layer_norm)
    for name, slope in zip(("W", "b"), slopes, strict=True):
        torch.testing.assert_close((old[name] - new[name]) / 1e-3, slope, atol=1e-8, rtol=1e-6)
    z = torch.einsum("pi,pij->pj", k, new["W"]) + new["b"]
    read = torch.nn.functional.layer_norm(z, (8,), scale, shift, 1e-6) if layer_norm else z
    assert (0.5 * (read - target).square().sum(dim=1) < loss.detach()).all()  # a small write lowers it


@pytest.mark.parametrize("settings", [PAPER, MggSettings(), MggSettings(core="lstm"), MggSettings(carry_memory=False)])
def test_coordinates_are_strangers_to_each_other(settings: MggSettings) -> None:
    mgg, x = drawn(settings), inputs(6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    memory, permuted, alone = mgg.start(6), mgg.start(6), mgg.start(2)
    for _ in range(3):
        u, memory = mgg(x, memory)
        v, permuted = mgg(x[order], permuted)
        w, alone = mgg(x[1:3], alone)
        torch.testing.assert_close(v, u[order], atol=1e-12, rtol=0)
        torch.testing.assert_close(w, u[1:3], atol=1e-12, rtol=0)


def test_the_scale_of_the_loss_does_not_matter() -> None:
    gradients = torch.randn(3, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    answers = []
    for factor in (1.0, 1e4):
        mgg, state = drawn(), moments_start((5,))
        memory = mgg.start(5)
        for gradient in gradients:
            state, x = moments_step(state, factor * gradient)
            u, memory = mgg(x, memory)
        answers.append(u)
    torch.testing.assert_close(answers[0], answers[1], atol=1e-5, rtol=0)


def test_a_step_is_bounded_by_1_and_with_the_correction_by_2() -> None:
    x = 1e3 * inputs(500)
    for settings, bound in ((PAPER, 1.0), (MggSettings(), 2.0), (MggSettings(core="lstm", zero_correction=False), 1.0)):
        mgg = drawn(settings)
        u, _ = mgg(x, mgg.start(500))
        assert u.abs().max() <= bound


@pytest.mark.parametrize("core", ["memory", "lstm"])
def test_no_gradient_gives_no_step_when_fresh_and_with_the_correction_whatever_was_learned(core: str) -> None:
    zero = torch.zeros(1, 2)
    fresh = Mgg(MggSettings(core=core, zero_correction=False))  # type: ignore[arg-type]
    assert fresh(zero, fresh.start(1))[0].item() == 0.0
    learned, corrected = (
        drawn(MggSettings(core=core, zero_correction=flag))
        for flag in (False, True)  # type: ignore[arg-type]
    )
    assert abs(learned(zero.double(), learned.start(1))[0].item()) > 1e-3  # the published defect
    memory = corrected.start(1)
    _, memory = corrected(inputs(1), memory)
    assert corrected(zero.double(), memory)[0].item() == 0.0


def test_without_memory_a_step_depends_on_its_own_input_alone() -> None:
    mgg, x = drawn(MggSettings(carry_memory=False)), inputs(4)
    _, memory = mgg(inputs(4, seed=9), mgg.start(4))
    torch.testing.assert_close(mgg(x, memory)[0], mgg(x, mgg.start(4))[0])
    carrying = drawn()
    _, memory = carrying(inputs(4, seed=9), carrying.start(4))
    assert not torch.allclose(carrying(x, memory)[0], carrying(x, carrying.start(4))[0])


def test_both_cores_have_about_the_published_164_weights() -> None:
    counts = [sum(value.numel() for value in Mgg(MggSettings(core=core)).parameters()) for core in ("memory", "lstm")]  # type: ignore[arg-type]
    assert counts == [164, 165]
    assert HIDDEN == 8


@pytest.mark.parametrize("wrong", [{"alpha": 0.0}, {"alpha": 1.5}, {"core": "gru"}, {"unroll": 0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        MggSettings(**wrong)  # type: ignore[arg-type]
