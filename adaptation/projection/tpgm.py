"""TPGM, trainable projected gradient method: the same balls as FTP, with radii learned from held-out batches.

After "Trainable Projected Gradient Method for Robust Fine-Tuning", Tian et al., CVPR 2023. After each step of any
optimizer, for all tensors W with anchor W0, c = W - W0 and norms n (`norms`):

    (1) at first  gamma = min_r n_r / 2;  always 1e-8 <= gamma <= max_r n_r
    (2) L(gamma) = cross-entropy of a held-out batch with W0 + min(1, gamma / n) c, in evaluation mode
    (3) gamma <- Adam(gamma, dL / d gamma), rate 1e-2
    (4) W <- W0 + min(1, gamma / n) c

(2) costs a forward and a backward pass more, which is what FTP saves. The public code gives each element of vectors
and of 1-D convolutions a norm of its own; here rows are output channels for all of them, as in FTP.
"""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.projection.norms import NORM_FLOOR, Norm, deviation_norms, into_ball

__all__ = ["TPGM"]


class TPGM:
    """Radii of a model's parameters, which are projected towards an anchor.

    To go on later, restore ``radii`` and the state of ``optimizer``, which is Adam on them.

    Args:
        named_parameters: The model's parameters; those without ``requires_grad`` stay free.
        anchor: The anchors of these, by name; where they are now when not given.
        rate: The rate of Adam on the radii, above 0; raising it lets the balls grow and shrink faster.
        norm: ``mars`` or ``l2``.
        exclude: Names of parameters that stay free.

    Raises:
        ConfigError: The rate is out of range, a name is unknown, or no parameter is left.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, Tensor]],
        anchor: Mapping[str, Tensor] | None = None,
        rate: float = 1e-2,
        norm: Norm = "mars",
        exclude: Iterable[str] = (),
    ) -> None:
        if not rate > 0:
            raise ConfigError(f"rate: expected above 0, got {rate}")
        named = {name: value for name, value in named_parameters if value.requires_grad}
        unknown = set(exclude) - set(named)
        if unknown:
            raise ConfigError(f"exclude: no parameter is called {sorted(unknown)}; there are: {', '.join(named)}")
        self._parameters = {name: value for name, value in named.items() if name not in set(exclude)}
        if not self._parameters:
            raise ConfigError("no parameter is left to project")
        start = self._parameters if anchor is None else anchor
        self._anchor = {name: start[name].detach().clone() for name in self._parameters}
        self.radii = {name: torch.zeros((), dtype=w.dtype, requires_grad=True) for name, w in self._parameters.items()}
        self.optimizer = torch.optim.Adam(self.radii.values(), lr=rate)
        self._norm = norm

    def step(self, held_out_loss: Callable[[Mapping[str, Tensor]], Tensor]) -> None:
        """Learn the radii from one held-out batch and project the parameters in place.

        Args:
            held_out_loss: A function from tensors by name, in place of the parameters so named, to the loss; such as
                ``lambda tensors: loss_of(torch.func.functional_call(model, dict(tensors), windows), labels)`` with the
                model in evaluation mode.
        """
        deviation = {name: w.detach() - self._anchor[name] for name, w in self._parameters.items()}
        norms = {name: deviation_norms(c, self._norm) for name, c in deviation.items()}
        with torch.no_grad():
            for name, radius in self.radii.items():
                if radius == 0:  # never learned
                    radius.copy_(norms[name].amin() / 2)
            self._clip(norms)
        placed = {
            name: into_ball(self._anchor[name], c, norms[name], self.radii[name]) for name, c in deviation.items()
        }
        with torch.enable_grad():
            loss = held_out_loss(placed)
            found = torch.autograd.grad(loss, list(self.radii.values()), materialize_grads=True)
        for radius, gradient in zip(self.radii.values(), found, strict=True):
            radius.grad = gradient
        self.optimizer.step()
        with torch.no_grad():
            self._clip(norms)
            for name, parameter in self._parameters.items():
                parameter.copy_(into_ball(self._anchor[name], deviation[name], norms[name], self.radii[name]))

    def _clip(self, norms: Mapping[str, Tensor]) -> None:
        for name, radius in self.radii.items():
            radius.copy_(radius.clamp(min=NORM_FLOOR).minimum(norms[name].amax()))
