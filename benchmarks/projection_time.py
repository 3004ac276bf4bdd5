"""Time of a training step under each projection, against plain AdamW and against TPGM.

Run ``python -m benchmarks.projection_time``: steps of all optimizers take turns on the same batches of 64 random
windows, so that a busy machine slows all alike; medians over the steps, forward and backward pass included. One core.
docs/continual.md holds a run.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from acclimate.adaptation.model.nets import Classifier, build
from acclimate.adaptation.model.spec import NetworkSpec, compact_spec
from acclimate.adaptation.projection.ftp import AdamFTP
from acclimate.adaptation.projection.spd import AdamSPD
from acclimate.adaptation.projection.tpgm import TPGM
from acclimate.infra.allocator import keep_freed_memory

NETWORKS: Mapping[str, NetworkSpec] = {
    "chest_har, conv1d of 48": compact_spec(3, 104, 4),
    "myo_emg, conv1d of 48": compact_spec(8, 52, 7),
    "cwru_bearing, conv1d of 48": compact_spec(2, 1024, 9),
    "gas_drift, mlp of 96": compact_spec(128, 1, 6, width=96),
}
_BATCH = 64
Step = Callable[[Tensor, Tensor], None]


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of a step: AdamW, SPD, FTP, TPGM.")
    parser.add_argument("--steps", type=int, default=200, help="of each optimizer on each network")
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    found = {name: medians(spec, arguments.steps) for name, spec in NETWORKS.items()}
    print(json.dumps(found, indent=1) if arguments.json else markdown(found))


def medians(spec: NetworkSpec, steps: int, batch: int = _BATCH) -> dict[str, float]:
    """Return the median seconds of a step, by optimizer."""
    generator = torch.Generator().manual_seed(0)
    takers = {name: make(spec) for name, make in _STEPS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in takers}
    for turn in range(steps + 5):
        windows = torch.randn(batch, spec.channels, spec.length, generator=generator)
        labels = torch.randint(0, spec.classes, (batch,), generator=generator)
        for name, take in takers.items():
            started = time.perf_counter()
            take(windows, labels)
            if turn >= 5:  # the first ones allocate
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(each) for name, each in seconds.items()}


def markdown(found: Mapping[str, Mapping[str, float]]) -> str:
    """Return the table: milliseconds, and the two ratios that decide."""
    names = list(_STEPS)
    lines = [f"| network | {' | '.join(names)} | FTP / AdamW | FTP / TPGM |", "|" + "---|" * (len(names) + 3)]
    for network, seconds in found.items():
        times = " | ".join(f"{1e3 * seconds[name]:.2f} ms" for name in names)
        ratios = f"{seconds['FTP'] / seconds['AdamW']:.2f} | {seconds['FTP'] / seconds['TPGM']:.2f}"
        lines.append(f"| {network} | {times} | {ratios} |")
    return "\n".join(lines)


def _model(spec: NetworkSpec) -> Classifier:
    torch.manual_seed(0)
    return build(spec).eval()


def _optimizer_step(make: Callable[[nn.Module], torch.optim.Optimizer]) -> Callable[[NetworkSpec], Step]:
    def prepare(spec: NetworkSpec) -> Step:
        model = _model(spec)
        optimizer = make(model)

        def take(windows: Tensor, labels: Tensor) -> None:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(windows), labels).backward()
            optimizer.step()

        return take

    return prepare


def _tpgm_step(spec: NetworkSpec) -> Step:
    model = _model(spec)
    optimizer, tpgm = torch.optim.AdamW(model.parameters(), weight_decay=0.0), TPGM(model.named_parameters())

    def take(windows: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(windows), labels).backward()
        optimizer.step()
        tpgm.step(
            lambda tensors: nn.functional.cross_entropy(
                torch.func.functional_call(model, dict(tensors), (windows,)), labels
            )
        )

    return take


_STEPS: Mapping[str, Callable[[NetworkSpec], Step]] = {
    "AdamW": _optimizer_step(lambda model: torch.optim.AdamW(model.parameters(), weight_decay=0.0)),
    "SPD": _optimizer_step(lambda model: AdamSPD(model.parameters())),
    "FTP": _optimizer_step(lambda model: AdamFTP(model.parameters())),
    "TPGM": _tpgm_step,
}


if __name__ == "__main__":
    main()
