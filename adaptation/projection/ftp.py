"""FTP, fast trainable projection: fine-tuning in balls around an anchor whose radii learn from the gradients at hand.

After "Fast Trainable Projection for Robust Fine-Tuning", Tian et al., NeurIPS 2023. TPGM learns one radius per tensor
from held-out batches, at the price of another forward and backward pass. FTP sees that the gradient g of a training
batch, taken at the weights projected before, already contains dL / d gamma: each batch is held out from the step before
it. After the displacement of the base optimizer, for each tensor W with anchor W0:

    (1) c = W~ - W0,  n_r = sum |c_r| + 1e-8                     where the base step leads; MARS, see `norms`
    (2) s = sum_r <g_r, c'_r> / n'_r                             c', n' of the step before
    (3) s <- k s  where s > 0                                    anneals shrinking alone
    (4) m = 0.9 m + 0.1 s,  v = 0.999 v + 0.001 s^2
        gamma <- gamma - mu (m / (1 - 0.9^t)) / (sqrt(v / (1 - 0.999^t)) + 1e-8)
    (5) gamma <- clip(gamma, 1e-8, max_r n_r)
    (6) W = W0 + min(1, gamma / n_r) c_r

t counts from 1; at t = 1 there is no c', gamma is 1e-8 and the first step is lost. All as in the public code, but that
its buffers go by position, so that a tensor without a gradient shifts them all, and are missing from its
``state_dict``; here state belongs to its parameter, and t counts the parameter's own steps.

Two options are RECONSTRUCTED, our proposal. ``warm_start`` takes the first step whole: gamma_1 = max_r n_r.
``relative_step`` reads mu as a share of max_r n_r: in absolute units gamma moves by up to 0.01 in L1 row norm whatever
the layer's width and the learning rate, and with small rates snaps between its two limits in (5).
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.projection.anchored import anchored, configure, plain_step, set_anchors, without_broken
from acclimate.adaptation.projection.norms import NORM_FLOOR, Norm, deviation_norms

__all__ = ["SGDFTP", "AdamFTP", "radius_slope", "radius_step"]

_BETAS = (0.9, 0.999)
_EPS = 1e-8


def radius_slope(gradient: Tensor, direction: Tensor) -> Tensor:
    """Return s = dL / d gamma, a scalar, of the projection that does not stop at gamma = n_r: (2).

    Args:
        gradient: dL / dW at W0 + gamma c / n, shape of W.
        direction: c / n, row by row, shape of W.
    """
    return torch.dot(gradient.reshape(-1), direction.reshape(-1))


def radius_step(
    radius: float, slope: float, m: float, v: float, step: int, rate: float, k: float = 1.0
) -> tuple[float, float, float]:
    """Return gamma, m and v after one step of Adam on the radius, before (5): (3), (4).

    Args:
        radius: gamma.
        slope: s.
        m: First moment of s.
        v: Second moment of s.
        step: t, 2 at the first slope there is.
        rate: mu; the step's size.
        k: 0 to 1; 0 leaves shrinking to (5) alone.
    """
    slope = k * slope if slope > 0 else slope  # (3)
    m = _BETAS[0] * m + (1 - _BETAS[0]) * slope
    v = _BETAS[1] * v + (1 - _BETAS[1]) * slope * slope
    m_hat, v_hat = m / (1 - _BETAS[0] ** step), v / (1 - _BETAS[1] ** step)
    return radius - rate * m_hat / (math.sqrt(v_hat) + _EPS), m, v  # (4)


class _Projected(Optimizer):
    """The part that FTP adds to an optimizer of torch; it stands before the optimizer in the list of parents."""

    _base: type[Optimizer]

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        *,
        exclude: Iterable[str] = (),
        mu: float = 1e-2,
        k: float = 1.0,
        norm: Norm = "mars",
        relative_step: bool = False,
        warm_start: bool = False,
        **base: Any,
    ) -> None:
        if not mu > 0:
            raise ConfigError(f"mu: expected above 0, got {mu}")
        if not 0 <= k <= 1:
            raise ConfigError(f"k: expected 0 to 1, got {k}")
        if norm not in ("mars", "l2"):
            raise ConfigError(f"norm: expected mars or l2, got {norm!r}")
        super().__init__(params, lr, **base)  # type: ignore[arg-type]  # SGD or AdamW comes next, not Optimizer
        settings = {"mu": mu, "k": k, "norm": norm, "relative_step": relative_step, "warm_start": warm_start}
        configure(self, settings, exclude)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, anchored where they are now unless the group brings its ``anchor``."""
        super().add_param_group(param_group)
        set_anchors(self.param_groups[-1])

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take the base optimizer's step and project; return what the closure returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with without_broken(self) as skipped:
            plain_step(self._base)(self)
            for group in self.param_groups:
                self._project(group)
        self.param_groups[0]["skipped"] += skipped
        return loss

    def _project(self, group: dict[str, Any]) -> None:
        constrained = list(anchored(group))
        if not constrained:
            return
        deviations = [parameter - anchor for parameter, _, anchor in constrained]  # (1)
        norms = [deviation_norms(deviation, group["norm"]) for deviation in deviations]
        states = [self.state[parameter] for parameter, _, _ in constrained]
        # Radii are numbers of Python: scalar tensors would cost more than all of the projection.
        largest = torch.stack([norm.amax() for norm in norms]).tolist()
        slopes = torch.stack(
            [
                radius_slope(gradient, state["ftp_direction"]) if "ftp_step" in state else norm.new_zeros(())
                for (_, gradient, _), norm, state in zip(constrained, norms, states, strict=True)
            ]
        ).tolist()
        for state, most, slope in zip(states, largest, slopes, strict=True):
            _next_radius(state, most, slope, group)
        for (parameter, _, anchor), deviation, norm, state in zip(constrained, deviations, norms, states, strict=True):
            torch.addcmul(anchor, (state["ftp_radius"] / norm).clamp_(max=1), deviation, out=parameter)  # (6)
            state["ftp_direction"] = deviation.div_(norm)


class SGDFTP(_Projected, SGD):
    """`torch.optim.SGD` with FTP after each step.

    Args:
        params: The parameters as torch takes them; named, where ``exclude`` is used. A group may bring ``anchor``, a
            tensor or None (free) per parameter; without, parameters are anchored where they are now.
        lr: Learning rate of the base step.
        exclude: Names of parameters that take the plain base step, such as those of a new head.
        mu: Rate of the radii, above 0; raising it lets the balls grow and shrink faster.
        k: 0 to 1, see (3); lowering it weakens shrinking alone.
        norm: ``mars`` or ``l2``.
        relative_step: Whether mu is a share of the present deviation.
        warm_start: Whether the first step is taken whole.
        **base: Further arguments of `torch.optim.SGD`.

    A gradient that is not finite leaves its parameter and the parameter's state alone; ``skipped``, in the first group,
    counts them.

    Raises:
        ConfigError: A value is out of range, or names or anchors do not fit the parameters.
    """

    _base = SGD


class AdamFTP(_Projected, AdamW):
    """`torch.optim.AdamW`, without weight decay by default, with FTP after each step; arguments as for `SGDFTP`.

    Raises:
        ConfigError: A value is out of range, or names or anchors do not fit the parameters.
    """

    _base = AdamW

    def __init__(self, params: Any, lr: float = 1e-3, *, weight_decay: float = 0.0, **others: Any) -> None:
        super().__init__(params, lr, weight_decay=weight_decay, **others)


def _next_radius(state: dict[str, Any], largest: float, slope: float, group: dict[str, Any]) -> None:
    """Write t, gamma, m and v into a parameter's state: (3) to (5)."""
    step = state["ftp_step"] = state.get("ftp_step", 0) + 1
    if step == 1:
        radius, m, v = largest if group["warm_start"] else NORM_FLOOR, 0.0, 0.0
    else:
        rate = group["mu"] * largest if group["relative_step"] else group["mu"]
        radius, m, v = radius_step(state["ftp_radius"], slope, state["ftp_m"], state["ftp_v"], step, rate, group["k"])
    state["ftp_radius"], state["ftp_m"], state["ftp_v"] = min(max(radius, NORM_FLOOR), largest), m, v  # (5)
