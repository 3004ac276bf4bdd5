"""A tiny, untrained model with the input shape of chest_har: delivery does not care how good it is."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from acclimate.adaptation.lean.lean_settings import LeanSettings
from acclimate.adaptation.lean.shift import calibrate
from acclimate.adaptation.model.nets import build
from acclimate.adaptation.model.spec import NetworkSpec
from acclimate.registry.bundles.source_bundle import Bundle, build_bundle
from acclimate.streams.agents.adapt import AdaptCore
from acclimate.streams.serving.served import InForce, serve
from acclimate.streams.wire.records import Incoming, Outgoing

CHANNELS, LENGTH = 3, 64


def windows(n: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (scale * rng.normal(size=(n, CHANNELS, LENGTH))).astype(np.float32)


def tiny_bundle(
    folder: Path,
    kind: str = "conv1d",
    data: str = "random numbers",
    sampling_rate_hz: float | None = None,
    step_samples: int | None = None,
) -> Bundle:
    torch.manual_seed(7)
    length = LENGTH if kind == "conv1d" else 1
    spec = NetworkSpec(kind, CHANNELS, length, 4, (8, 8), (5, 3) if kind == "conv1d" else ())
    source = windows(300)[:, :, :length]
    model = build(spec).train()
    for _ in range(20):  # running statistics, so that shifts have a scale
        model(torch.from_numpy(source))
    model.eval()
    return build_bundle(
        model,
        LeanSettings(tau=0.25, lam=1.0, layers=(True, False), threshold=1.0),
        calibrate(model, source[:200], source[200:]),
        tuple(f"axis_{i}" for i in range(CHANNELS)),
        ("normal", "imbalance", "looseness", "bearing"),
        {"data": data},
        source[:8],
        folder,
        sampling_rate_hz,
        step_samples,
    )


def core(bundle: Bundle, fleet: str = "plant", mode: str = "always", bytes_max: int = 1_000_000) -> AdaptCore:
    return AdaptCore(fleet, InForce(serve(bundle, mode)), bytes_max)


def outputs(core: AdaptCore, records: Sequence[Incoming]) -> list[Outgoing]:
    """Return what a core makes of records, one after the other: the adapt core has one output for each."""
    return [output for outputs in core.process(records) for output in outputs]
