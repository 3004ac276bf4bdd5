"""SPD, selective projection decay: pull a tensor back only where the gradient wants home and momentum still goes out.

After "Rethinking Weight Decay for Robust Fine-Tuning of Foundation Models", Tian et al., NeurIPS 2024. With W' before
the step, W~ after AdamW's (without decay of its own), W0 the anchor, g the gradient, for each tensor:

    (1) nothing more unless <g, W' - W0> > 0                        going down the loss leads back to the anchor
    (2) r = clip((||W~ - W0|| - ||W' - W0||) / ||W~ - W0||, 0, 1)    share by which the step went out
    (3) W = W~ - min(1, lambda r) (W~ - W0)

lambda = 1 lands on the sphere the step began on, 0 is AdamW. Nothing is learned and nothing kept but the anchor. The
public code has no minimum in (3), and with lambda above 1 may come out on the anchor's other side.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import AdamW

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.projection.anchored import anchored, configure, plain_step, set_anchors, without_broken
from acclimate.adaptation.projection.norms import NORM_FLOOR

__all__ = ["AdamSPD"]


class AdamSPD(AdamW):
    """`torch.optim.AdamW` with selective projection decay in place of weight decay.

    Args:
        params: The parameters as torch takes them; named, where ``exclude`` is used. A group may bring ``anchor``, a
            tensor or None (free) per parameter; without, parameters are anchored where they are now.
        lr: Learning rate of the base step.
        exclude: Names of parameters that take the plain base step.
        lam: lambda, 0 or more; raising it keeps closer to the anchor.
        **base: Further arguments of `torch.optim.AdamW`.

    A gradient that is not finite leaves its parameter alone; ``skipped``, in the first group, counts them.

    Raises:
        ConfigError: A value is out of range, or names or anchors do not fit the parameters.
    """

    def __init__(
        self, params: Any, lr: float = 1e-3, *, exclude: Iterable[str] = (), lam: float = 1.0, **base: Any
    ) -> None:
        if not lam >= 0:
            raise ConfigError(f"lam: expected 0 or more, got {lam}")
        super().__init__(params, lr, weight_decay=0.0, **base)
        configure(self, {"lam": lam}, exclude)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, anchored where they are now unless the group brings its ``anchor``."""
        super().add_param_group(param_group)
        set_anchors(self.param_groups[-1])

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take AdamW's step and decay selectively; return what the closure returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with without_broken(self) as skipped:
            constrained = [(*found, group["lam"]) for group in self.param_groups for found in anchored(group)]
            before = [parameter - anchor for parameter, _, anchor, _ in constrained]
            plain_step(AdamW)(self)
            for (parameter, gradient, anchor, lam), old in zip(constrained, before, strict=True):
                new = parameter - anchor
                homeward = (gradient * old).sum() > 0  # (1)
                length = new.norm()
                r = ((length - old.norm()) / (length + NORM_FLOOR)).clamp(0, 1)  # (2)
                share = torch.where(homeward, (lam * r).clamp(max=1), torch.zeros_like(r))
                parameter.sub_(share * new)  # (3)
        self.param_groups[0]["skipped"] += skipped
        return loss
