"""MGG: a learned optimizer for gamma and beta whose memory of past gradients is a small model that keeps learning.

After "Learning to Generate Gradients for Test-Time Adaptation via Test-Time Training Layers", Deng et al., AAAI 2025.
It works coordinate by coordinate with the same weights for all, so one MGG serves any number of coordinates: vectors
of any width, layers of any number, networks that it was never trained with. For a coordinate's gradient g at step t:

    (1) m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2,   b1 = 0.9, b2 = 0.99
    (2) m_hat = m / (1 - b1^(t+1)),   v_hat = v / (1 - b2^(t+1)),   t = 1 at the first step (the published exponents)
    (3) x = (m_hat, g) / (sqrt(v_hat) + 1e-8)

The memory (W, b), W 8 x 8 and b 8 per coordinate, is a linear model that learns to reconstruct one view of x from
another; it is written first and read then:

    (4) q, k, v = x Wq, x Wk, x Wv
    (5) eta = sigmoid(x . w_eta + b_eta) max(1 + delta, 0) / 8
    (6) l(W, b) = 1/2 || LN(k W + b) - (v - k) ||^2
    (7) W <- W - eta dl/dW,   b <- b - eta dl/db
    (8) z = q + LN(q W + b)
    (9) u = tanh(Wo . LN_post(z)),   gamma or beta <- it - alpha u

So |step| <= alpha. The step carries no scale of the gradient: (3) makes small noisy gradients as large as any.

Not the paper's: ``zero_correction`` gives u(x) - u(0), because training moves the biases in LN, and then every
coordinate is pushed whether it has a gradient or not (a known defect; u(0) reached 0.5 to 0.9 here). The step's bound
doubles. The public code's choice is an ablation, like those of `MggSettings`: no memory carried on, no layer
normalisation, and an LSTM of the same size in the place of (4) to (8).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from acclimate.adaptation.errors import ConfigError

__all__ = [
    "BETA1",
    "BETA2",
    "HIDDEN",
    "LSTM_HIDDEN",
    "MOMENT_EPS",
    "NORM_EPS",
    "Memory",
    "Mgg",
    "MggSettings",
    "memory_step",
    "moments_start",
    "moments_step",
]

HIDDEN = 8
BETA1, BETA2, MOMENT_EPS = 0.9, 0.99, 1e-8
NORM_EPS = 1e-6
LSTM_HIDDEN = 5  # 4 f (2 + f) + 4 f + f = 165 numbers beside the 164 of the memory

Memory = Mapping[str, Tensor]  # first axis: coordinates


@dataclass(frozen=True)
class MggSettings:
    """The settings of an MGG: how it is built, trained and used.

    Attributes:
        alpha: Largest step of a coordinate, above 0, in meta-training and at test. Raising it adapts faster. The paper
            has 0.001 for transformers; of 0.003, 0.01 and 0.03 the last had the lowest loss on held-out source groups
            of three recordings.
        core: ``memory`` is the paper's; ``lstm`` a baseline of the same size.
        carry_memory: Whether memory lives on from batch to batch; an ablation where not.
        layer_norm: Whether LN normalises; an ablation where not.
        labels: Whether meta-training asks for right answers on the next batch, or, as the public code does, for a low
            loss without labels: an ablation.
        unroll: Steps that meta-training differentiates through, from 1.
        zero_correction: See above.
    """

    alpha: float = 3e-2
    core: Literal["memory", "lstm"] = "memory"
    carry_memory: bool = True
    layer_norm: bool = True
    labels: bool = True
    unroll: int = 1
    zero_correction: bool = True

    def __post_init__(self) -> None:
        if not 0.0 < self.alpha <= 1.0:
            raise ConfigError(f"alpha: expected above 0 to 1, got {self.alpha}")
        if self.core not in ("memory", "lstm"):
            raise ConfigError(f"core: expected memory or lstm, got {self.core!r}")
        if self.unroll < 1:
            raise ConfigError(f"unroll: expected at least 1 step, got {self.unroll}")


def moments_start(coordinates: tuple[int, ...]) -> dict[str, Tensor]:
    """Return (1) before the first step, and the count of steps."""
    return {
        "m": torch.zeros(coordinates),
        "v": torch.zeros(coordinates),
        "steps": torch.zeros((), dtype=torch.int64),
    }


def moments_step(state: Mapping[str, Tensor], gradient: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Return (1), and (3) as (..., 2), for gradients of any shape."""
    exponent = int(state["steps"]) + 2  # t + 1
    m = BETA1 * state["m"] + (1 - BETA1) * gradient
    v = BETA2 * state["v"] + (1 - BETA2) * gradient.square()
    scale = (v / (1 - BETA2**exponent)).sqrt() + MOMENT_EPS  # (2)
    x = torch.stack((m / (1 - BETA1**exponent) / scale, gradient / scale), dim=-1)  # (3)
    return {"m": m, "v": v, "steps": state["steps"] + 1}, x


def memory_step(
    memory: Memory, k: Tensor, target: Tensor, eta: Tensor, scale: Tensor, shift: Tensor, layer_norm: bool = True
) -> dict[str, Tensor]:
    """Write: (7) with the gradient of (6) worked out.

    Args:
        memory: ``W`` (P, f, f) and ``b`` (P, f).
        k: (P, f).
        target: v - k, (P, f).
        eta: (P, 1).
        scale, shift: The scale and shift of LN, (f,).
        layer_norm: Without, LN is the identity.
    """
    z = torch.einsum("pi,pij->pj", k, memory["W"]) + memory["b"]  # (P, f)
    if layer_norm:
        deviation = z - z.mean(dim=1, keepdim=True)
        sd = (deviation.square().mean(dim=1, keepdim=True) + NORM_EPS).sqrt()
        h = deviation / sd
        e = (scale * h + shift - target) * scale
        gradient = (e - e.mean(dim=1, keepdim=True) - h * (e * h).mean(dim=1, keepdim=True)) / sd
    else:
        gradient = z - target
    return {
        "W": memory["W"] - eta[:, :, None] * k[:, :, None] * gradient[:, None, :],
        "b": memory["b"] - eta * gradient,
    }


class Mgg(nn.Module):
    """The slow, meta-learned weights: 164 numbers.

    Args:
        settings: See `MggSettings`.
        seed: The seed of the initial weights.
    """

    def __init__(self, settings: MggSettings, seed: int = 0) -> None:
        super().__init__()
        self.settings = settings
        generator = torch.Generator().manual_seed(seed)

        def drawn(*shape: int, std: float | None = None) -> nn.Parameter:
            # torch's own range for a linear map without bias, where the paper's code leaves it to torch
            values = torch.empty(shape)
            if std is None:
                bound = shape[-1] ** -0.5
                return nn.Parameter(values.uniform_(-bound, bound, generator=generator))
            return nn.Parameter(values.normal_(0.0, std, generator=generator))

        f = HIDDEN
        if settings.core == "lstm":
            f = LSTM_HIDDEN
            self.gates = drawn(4 * f, 2 + f)
            self.gates_bias = nn.Parameter(torch.zeros(4 * f))
        else:
            self.query, self.key, self.value = drawn(f, 2), drawn(f, 2), drawn(f, 2)
            self.memory_weight, self.memory_bias = drawn(f, f, std=0.02), nn.Parameter(torch.zeros(f))
            self.rate_weight, self.rate_bias = drawn(2, std=0.02), nn.Parameter(torch.zeros(()))
            self.rate_offset = nn.Parameter(torch.zeros(()))  # delta
            self.inner_scale, self.inner_shift = nn.Parameter(torch.ones(f)), nn.Parameter(torch.zeros(f))
            self.post_scale, self.post_shift = nn.Parameter(torch.ones(f)), nn.Parameter(torch.zeros(f))
        self.out = drawn(f)

    def start(self, coordinates: int) -> dict[str, Tensor]:
        """Return the memory of so many coordinates before any gradient; copies of learned weights."""
        if self.settings.core == "lstm":
            return {name: torch.zeros(coordinates, LSTM_HIDDEN) for name in ("hidden", "cell")}
        return {
            "W": self.memory_weight.expand(coordinates, -1, -1).clone(),
            "b": self.memory_bias.expand(coordinates, -1).clone(),
        }

    def forward(self, x: Tensor, memory: Memory) -> tuple[Tensor, dict[str, Tensor]]:
        """Return u (P,), and the memory after it, for x (P, 2) of (3)."""
        if not self.settings.carry_memory:
            memory = self.start(len(x))
        u, new = self._step(x, memory)
        if self.settings.zero_correction:
            u = u - self._step(torch.zeros_like(x), memory)[0]
        return u, new

    def _step(self, x: Tensor, memory: Memory) -> tuple[Tensor, dict[str, Tensor]]:
        if self.settings.core == "lstm":
            return self._lstm(x, memory)
        q, k, v = x @ self.query.T, x @ self.key.T, x @ self.value.T  # (4)
        rate = torch.sigmoid(x @ self.rate_weight + self.rate_bias) * (1 + self.rate_offset).clamp_min(0.0)
        eta = (rate / HIDDEN)[:, None]  # (5)
        new = memory_step(
            memory, k, v - k, eta, self.inner_scale, self.inner_shift, self.settings.layer_norm
        )  # (6), (7)
        read = torch.einsum("pi,pij->pj", q, new["W"]) + new["b"]
        z = q + self._norm(read, self.inner_scale, self.inner_shift)  # (8)
        return torch.tanh(self._norm(z, self.post_scale, self.post_shift) @ self.out), new  # (9)

    def _lstm(self, x: Tensor, memory: Memory) -> tuple[Tensor, dict[str, Tensor]]:
        gates = torch.cat((x, memory["hidden"]), dim=1) @ self.gates.T + self.gates_bias
        admit, forget, candidate, show = gates.chunk(4, dim=1)
        cell = torch.sigmoid(forget + 1.0) * memory["cell"] + torch.sigmoid(admit) * torch.tanh(candidate)
        hidden = torch.sigmoid(show) * torch.tanh(cell)
        return torch.tanh(hidden @ self.out), {"hidden": hidden, "cell": cell}

    def _norm(self, z: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        if not self.settings.layer_norm:
            return z
        return nn.functional.layer_norm(z, (HIDDEN,), scale, shift, NORM_EPS)
