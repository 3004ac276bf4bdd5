"""FTP against a trace of its authors' code, a finite difference, and what must hold after every step."""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.projection.ftp import SGDFTP, AdamFTP, radius_slope, radius_step
from acclimate.adaptation.projection.norms import deviation_norms
from tests.adaptation.projection.problem import loss_at, parameters, take_steps

# 20 steps of the optimizers of the public code (GT-RIPL/FTP, util/FTP.py, commit fee9b1a) on `problem`, in float64:
# the radii after each step, and the weights after the last.
TRACE = json.loads((Path(__file__).parent / "ftp_trace.json").read_text())

MAKE: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda named: SGDFTP(named, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda named: AdamFTP(named, lr=3e-3, weight_decay=0.1),
    "adam_k0.3_small": lambda named: AdamFTP(named, lr=1e-4, k=0.3),
    "adam_exclude": lambda named: AdamFTP(named, lr=3e-3, exclude=["head.weight"]),
}
BOTH = pytest.mark.parametrize(
    ("ours", "base"),
    [
        (lambda p, **more: SGDFTP(p, lr=0.05, momentum=0.9, **more), lambda p: SGD(p, lr=0.05, momentum=0.9)),
        (lambda p, **more: AdamFTP(p, lr=3e-3, **more), lambda p: AdamW(p, lr=3e-3, weight_decay=0.0)),
    ],
    ids=["sgd", "adam"],
)
Make = Callable[..., Optimizer]


@pytest.mark.parametrize("case", MAKE)
def test_twenty_steps_are_those_of_the_public_code(case: str) -> None:
    p = parameters()
    optimizer = MAKE[case](p.items())
    for step, radii in enumerate(TRACE[case]["radii"], 1):
        take_steps(optimizer, p, step, step)
        found = [optimizer.state[leaf]["ftp_radius"] for leaf in p.values() if "ftp_step" in optimizer.state[leaf]]
        assert found == pytest.approx(radii, rel=1e-6, abs=1e-14)
    for name, end in TRACE[case]["end"].items():
        assert p[name].detach().flatten().tolist() == pytest.approx(end, abs=1e-9)


def test_the_first_slope_moves_the_radius_by_three_quarters_of_mu_since_bias_correction_starts_late() -> None:
    radius, _, _ = radius_step(0.0, -5.0, 0.0, 0.0, step=2, rate=0.01)
    assert radius == pytest.approx(0.01 * (0.1 / (1 - 0.9**2)) / math.sqrt(0.001 / (1 - 0.999**2)), rel=1e-6)


def test_the_slope_is_the_derivative_of_the_loss_by_the_radius() -> None:
    anchor = {name: leaf.detach().clone() for name, leaf in parameters().items()}
    generator = torch.Generator().manual_seed(0)
    deviation = {n: torch.randn(w.shape, generator=generator, dtype=torch.float64) for n, w in anchor.items()}
    norms = {name: deviation_norms(c) for name, c in deviation.items()}

    def placed(radius: float, moved: str) -> dict[str, Tensor]:
        radii = {name: radius if name == moved else 0.2 for name in anchor}
        return {n: (anchor[n] + radii[n] / norms[n] * deviation[n]).requires_grad_() for n in anchor}

    for name in anchor:
        here = placed(0.2, name)
        loss_at(1, here).backward()
        gradient = here[name].grad
        assert gradient is not None
        slope = float(radius_slope(gradient, deviation[name] / norms[name]))
        step = 1e-5
        above, below = (loss_at(1, placed(0.2 + by, name)).detach() for by in (step, -step))
        assert slope == pytest.approx(float(above - below) / (2 * step), rel=1e-4)


@BOTH
@pytest.mark.parametrize("options", [{}, {"warm_start": True}, {"relative_step": True, "mu": 0.1}, {"norm": "l2"}])
def test_after_every_step_no_row_is_outside_its_ball(ours: Make, base: Make, options: dict[str, Any]) -> None:
    p = parameters()
    anchor = {name: leaf.detach().clone() for name, leaf in p.items()}
    optimizer = ours(p.items(), **options)
    for step in range(1, 21):
        take_steps(optimizer, p, step, step)
        for name, leaf in p.items():
            radius = optimizer.state[leaf]["ftp_radius"]
            assert radius >= 1e-8
            norms = deviation_norms(leaf.detach() - anchor[name], options.get("norm", "mars"))
            assert float(norms.max()) <= radius * (1 + 1e-6) + 1e-8


@BOTH
def test_excluded_parameters_are_the_base_optimizer_s_bit_for_bit(ours: Make, base: Make) -> None:
    p, plain = parameters(), parameters()
    mine, theirs = ours(p.items(), exclude=list(p)), base(plain.values())
    take_steps(mine, p, 1, 20)
    take_steps(theirs, plain, 1, 20)
    for name in p:
        assert torch.equal(p[name], plain[name])


@BOTH
def test_a_warm_start_takes_the_first_step_whole(ours: Make, base: Make) -> None:
    p, plain, cold = parameters(), parameters(), parameters()
    take_steps(ours(p.items(), warm_start=True), p, 1, 1)
    take_steps(base(plain.values()), plain, 1, 1)
    take_steps(ours(cold.items()), cold, 1, 1)
    for name, leaf in p.items():
        torch.testing.assert_close(leaf, plain[name], rtol=0, atol=1e-12)
        torch.testing.assert_close(cold[name], parameters()[name], rtol=0, atol=2e-8)


def test_with_a_relative_step_radii_grow_with_the_scale_of_the_weights() -> None:
    def radii(scale: float, **options: Any) -> list[float]:
        leaf = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
        optimizer = SGDFTP([leaf], lr=0.1 * scale**2, warm_start=True, **options)  # the same path, in other units
        found = []
        for step in range(1, 11):
            optimizer.zero_grad()
            (leaf / scale - torch.tensor([1.0, math.sin(step), 0.5])).square().sum().backward()
            optimizer.step()
            found.append(optimizer.state[leaf]["ftp_radius"] / scale)
        return found

    assert radii(100.0, relative_step=True, mu=0.1) == pytest.approx(radii(1.0, relative_step=True, mu=0.1), rel=1e-6)
    assert radii(100.0) != pytest.approx(radii(1.0), rel=1e-2)


def test_without_a_gradient_to_follow_nothing_leaves_the_anchor() -> None:
    p = parameters()
    optimizer = AdamFTP(p.items())
    for _ in range(3):
        for leaf in p.values():
            leaf.grad = torch.zeros_like(leaf)
        optimizer.step()
    for name, leaf in parameters().items():
        assert torch.equal(p[name], leaf)


@BOTH
@pytest.mark.parametrize("again", ["state_dict", "deepcopy"])
def test_a_restored_optimizer_takes_the_same_ten_steps(ours: Make, base: Make, again: str) -> None:
    p = parameters()
    optimizer = ours(p.items(), k=0.5, exclude=["conv.bias"])
    take_steps(optimizer, p, 1, 10)
    if again == "deepcopy":
        q, restored = copy.deepcopy((p, optimizer))
    else:
        q = {name: leaf.detach().clone().requires_grad_() for name, leaf in p.items()}
        restored = ours(q.items())  # other settings and other anchors, which the state replaces
        restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    take_steps(optimizer, p, 11, 20)
    take_steps(restored, q, 11, 20)
    for name in p:
        assert torch.equal(p[name], q[name])


def test_a_gradient_that_is_missing_for_a_step_changes_no_other_parameter() -> None:
    p, q = parameters(), parameters()
    straight, gapped = AdamFTP(p.items()), AdamFTP(q.items())
    for step in range(1, 9):
        for leaves, optimizer in ((p, straight), (q, gapped)):
            for number, leaf in enumerate(leaves.values()):
                leaf.grad = torch.full_like(leaf, math.cos(step + number))
            if optimizer is gapped and step == 4:
                q["conv.bias"].grad = None
            optimizer.step()
    assert torch.equal(p["conv.weight"], q["conv.weight"])
    assert torch.equal(p["head.weight"], q["head.weight"])
    assert straight.state[p["conv.bias"]]["ftp_step"] == gapped.state[q["conv.bias"]]["ftp_step"] + 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_leaves_its_parameter_alone_and_is_counted(bad: float) -> None:
    p = parameters()
    optimizer = AdamFTP(p.items(), warm_start=True)
    take_steps(optimizer, p, 1, 3)
    before, others = p["conv.bias"].detach().clone(), p["conv.weight"].detach().clone()
    state = copy.deepcopy(optimizer.state[p["conv.bias"]])
    optimizer.zero_grad()
    loss_at(4, p).backward()
    gradient = p["conv.bias"].grad
    assert gradient is not None
    gradient[1] = bad
    optimizer.step()
    assert torch.equal(p["conv.bias"], before)
    assert not torch.equal(p["conv.weight"], others)
    for name, value in state.items():
        now = optimizer.state[p["conv.bias"]][name]
        assert torch.equal(now, value) if isinstance(value, Tensor) else now == value
    assert optimizer.param_groups[0]["skipped"] == 1
    assert p["conv.bias"].grad is gradient


def test_hooks_and_closures_are_called_once_even_after_torch_has_patched_the_parent() -> None:
    Adam([torch.zeros(1, requires_grad=True)])
    AdamW([torch.zeros(1, requires_grad=True)])  # torch patches the class's step now
    p = parameters()
    optimizer = AdamFTP(p.items())
    calls = []
    optimizer.register_step_post_hook(lambda *_: calls.append("hook"))

    def closure() -> Tensor:
        calls.append("closure")
        optimizer.zero_grad()
        loss = loss_at(1, p)
        loss.backward()
        return loss

    assert float(optimizer.step(closure).detach()) == pytest.approx(float(loss_at(1, parameters()).detach()))
    assert calls == ["closure", "hook"]


def test_a_group_that_is_added_later_is_anchored_where_it_is_then() -> None:
    p = parameters()
    optimizer = AdamFTP([("conv.weight", p["conv.weight"])])
    take_steps(optimizer, p, 1, 3)
    optimizer.add_param_group({"params": [("conv.bias", p["conv.bias"])], "warm_start": True})
    optimizer.add_param_group({"params": [("head.weight", p["head.weight"])], "anchor": [None]})
    take_steps(optimizer, p, 4, 6)
    assert torch.equal(optimizer.param_groups[1]["anchor"][0], parameters()["conv.bias"])
    assert "ftp_step" in optimizer.state[p["conv.bias"]]
    assert "ftp_step" not in optimizer.state[p["head.weight"]]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mu": 0.0}, "mu"),
        ({"k": 1.5}, "k: expected 0 to 1"),
        ({"norm": "linf"}, "mars or l2"),
        ({"exclude": ["head.wight"]}, "head.wight"),
    ],
)
def test_settings_that_cannot_be_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        AdamFTP(parameters().items(), **options)


def test_names_to_exclude_need_named_parameters() -> None:
    with pytest.raises(ConfigError, match="named_parameters"):
        SGDFTP(list(parameters().values()), exclude=["head.weight"])


def test_an_anchor_of_another_shape_is_refused() -> None:
    with pytest.raises(ConfigError, match="anchor"):
        AdamFTP([{"params": [torch.zeros(3, requires_grad=True)], "anchor": [torch.zeros(4)]}])
    with pytest.raises(ConfigError, match="anchor"):
        AdamFTP([{"params": [torch.zeros(3, requires_grad=True)], "anchor": [torch.zeros(3), None]}])
