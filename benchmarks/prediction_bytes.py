"""What a prediction costs, per window: bytes, and processor time to write and to read it.

``python -m benchmarks.prediction_bytes``: an untrained net with 3 BatchNorm layers on windows of 3 x 104, CPU time,
medians of several rounds. Prints one line of JSON per number of classes and of windows per record. The engine's time is
not in it; `benchmarks.pipeline` measures that.
"""

import gzip
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from acclimate.adaptation.lean.lean_settings import LeanSettings
from acclimate.adaptation.lean.shift import calibrate
from acclimate.adaptation.model.nets import build
from acclimate.adaptation.model.spec import NetworkSpec
from acclimate.registry.bundles.source_bundle import build_bundle
from acclimate.streams.serving.prediction import prediction
from acclimate.streams.serving.served import Served, serve
from acclimate.streams.wire.codec import FeatureBatch
from acclimate.streams.wire.predictions import parse_prediction

CHANNELS, LENGTH = 3, 104
ROUNDS = 7
WINDOWS_PER_ROUND = 2_048


def main() -> None:
    for classes in (4, 17):
        with tempfile.TemporaryDirectory() as folder:
            served = _served(classes, Path(folder) / "bundle")
        for windows in (1, 8, 32, 256):
            print(json.dumps({"classes": classes, "windows_per_record": windows, **_figures(served, windows)}))


def _served(classes: int, folder: Path) -> Served:
    torch.manual_seed(0)
    model = build(NetworkSpec("conv1d", CHANNELS, LENGTH, classes, (16,) * 3, (7, 5, 3))).eval()
    source = np.random.default_rng(0).normal(size=(320, CHANNELS, LENGTH)).astype(np.float32)
    settings = LeanSettings.for_layers(3)
    names = tuple(f"axis_{i}" for i in range(CHANNELS)), tuple(f"class-{i}" for i in range(classes))
    calibration = calibrate(model, source[:200], source[200:])
    return serve(build_bundle(model, settings, calibration, *names, {}, source[:8], folder), "always")


def _figures(served: Served, n: int) -> dict[str, float]:
    windows = np.random.default_rng(1).normal(size=(n, CHANNELS, LENGTH)).astype(np.float32)
    times = range(1_700_000_000_000, 1_700_000_000_000 + 1000 * n, 1000)
    batch = FeatureBatch("pump-7", "00ff00ff00ff00ff", 4_711, tuple(times), windows)
    outputs = served.engine.run(windows)
    value = prediction(batch, served, outputs)[1]
    assert parse_prediction(value) is not None
    return {
        "bytes_per_window": round(len(value) / n, 1),
        "gzip_bytes_per_window": round(len(gzip.compress(value)) / n, 1),
        "write_us_per_window": _cpu_us(lambda: prediction(batch, served, outputs), n),
        "read_us_per_window": _cpu_us(lambda: parse_prediction(value), n),
    }


def _cpu_us(act: Callable[[], object], windows: int) -> float:
    """Return microseconds of processor time per window, the median over rounds."""
    repeats = max(1, WINDOWS_PER_ROUND // windows)
    rounds = []
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in range(repeats):
            act()
        rounds.append((time.process_time() - started) / repeats / windows * 1e6)
    return round(statistics.median(rounds), 2)


if __name__ == "__main__":
    main()
