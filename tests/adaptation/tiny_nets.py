"""Small networks and signals for tests: real training where a test needs a trained net, seeded and fast."""

import functools

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from acclimate.adaptation.lean.lean_settings import LeanSettings
from acclimate.adaptation.lean.shift import calibrate
from acclimate.adaptation.lean.shift_calibration import ShiftCalibration
from acclimate.adaptation.model.nets import Classifier, build
from acclimate.adaptation.model.spec import NetworkSpec

torch.set_num_threads(1)  # more only make nets of this size slower, on a busy machine by a factor of ten

FloatArray = npt.NDArray[np.float32]

CONV = NetworkSpec("conv1d", channels=3, length=20, classes=4, widths=(6, 7), kernels=(5, 3))
ODD = NetworkSpec(
    "conv1d", channels=5, length=13, classes=3, widths=(13, 9, 5), kernels=(7, 5, 3), transform="signedlog"
)
MLP = NetworkSpec("mlp", channels=11, length=1, classes=3, widths=(9, 6), transform="signedlog")
SPECS = (CONV, ODD, MLP)


def windows_for(spec: NetworkSpec, count: int, seed: int = 0) -> FloatArray:
    """Return random windows (count, C, L) with another gain and offset in every channel."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((count, spec.channels, spec.length))
    gain, offset = (
        np.exp(0.5 * rng.standard_normal((count, spec.channels, 1))),
        rng.standard_normal((1, spec.channels, 1)),
    )
    return (gain * noise + offset).astype(np.float32)


@functools.cache
def settled(spec: NetworkSpec) -> tuple[Classifier, ShiftCalibration]:
    """Return an untrained network with lifelike statistics and affine parameters, and its calibration."""
    windows = windows_for(spec, 200, seed=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(spec)
        model.scaling.mean += 0.3
        model.scaling.std *= 0.7
        for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm1d)):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
    model.train()
    with torch.no_grad():
        for _ in range(30):
            model(torch.from_numpy(windows))
    model.eval().requires_grad_(False)
    return model, calibrate(model, windows[:120], windows[120:])


def tones(count: int, seed: int) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Return windows (count, 2, 32) of two sensors that see a tone, and which of three pitches it has."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    time = np.arange(32)[None, None, :]
    phase = rng.uniform(0, 2 * np.pi, (count, 2, 1))
    level = rng.uniform(0.8, 1.2, (count, 1, 1))
    signal = level * np.sin(2 * np.pi * np.array([1, 3, 6])[labels][:, None, None] * time / 32 + phase)
    return (signal + 0.1 * rng.standard_normal(signal.shape)).astype(np.float32), labels


@functools.cache
def trained_on_tones() -> tuple[Classifier, ShiftCalibration]:
    """Return a small trained network that tells the pitches apart, and its calibration."""
    windows, labels = tones(600, seed=2)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = build(NetworkSpec("conv1d", channels=2, length=32, classes=3, widths=(8, 8), kernels=(5, 3)))
    model.train()
    weights = list(model.parameters())
    for _ in range(60):  # gradient descent by hand: importing torch's optimizers takes seconds
        loss = nn.functional.cross_entropy(model(torch.from_numpy(windows)), torch.from_numpy(labels))
        gradients = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.sub_(0.5 * gradient)
    model.eval().requires_grad_(False)
    return model, calibrate(model, windows, tones(400, seed=3)[0])


def lean(spec: NetworkSpec, tau: float = 0.3, lam: float = 1.0, **changes: object) -> LeanSettings:
    """Return settings with every layer adapted."""
    return LeanSettings(**{"tau": tau, "lam": lam, "layers": (True,) * spec.layers, **changes})  # type: ignore[arg-type]
