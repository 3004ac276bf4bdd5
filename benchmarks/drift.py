"""What the per-device drift detector promises and keeps: ``python -m benchmarks.drift``.

Scores are log Mahalanobis distances on the frozen features of a source model that was trained on all source devices but
one, of that one's windows in time order; three devices of each recording under ``../shared/data`` that is there. Beside
them AR(1) series of 2,500 windows. For each stream the threshold is fitted for one false alarm in 10,000 windows.
Prints as Markdown, or with ``--json``:

1. false alarms on other block-bootstrapped replicates of the same reference, and how soon a step is found;
2. the same for other block lengths: what the threshold leans on;
3. false alarms on windows that the reference did not hold: new AR(1) data, the second half of a device's stream after
   calibration on its first, and a device after calibration on the other devices of its recording;
4. how often a fault of severity 3 in the second half of a real stream raises an alarm within 60 windows.

Training takes most of the time (minutes per device on one core); ``--cache DIR`` keeps the scores and goes on there.
docs/drift.md holds a run and what follows.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from acclimate.adaptation.data.corruptions import centre_and_scale, corrupt
from acclimate.adaptation.data.dataset import Dataset
from acclimate.adaptation.data.load import load
from acclimate.adaptation.drift.bootstrap import BLOCK, fit_threshold
from acclimate.adaptation.drift.cusum import Cusum, fit_scores
from acclimate.adaptation.drift.mahalanobis import fit_features, log_scores
from acclimate.adaptation.drift.run_length import detection_delays, false_alarms
from acclimate.adaptation.model.nets import Classifier
from acclimate.adaptation.model.train import default_epochs, default_spec, fit
from acclimate.infra.allocator import keep_freed_memory

DATA = Path(__file__).parents[2] / "shared" / "data"
RECORDINGS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "chest_har": ({"label": "y4", "source": "device=1-5"}, ("1", "3", "5")),
    "myo_emg": ({"label": "y", "source": "device=0-6,10-14"}, ("0", "5", "12")),
}
PHIS = (0.0, 0.5, 0.8, 0.95)
SYNTHETIC, FRESH, FRESH_LENGTH = 2500, 40, 20_000
FAULTS, SEVERITY, FAULT_STARTS, PATIENCE = ("gain", "offset", "noise", "channel_dropout"), 3, 5, 60
TARGET = 10_000
BLOCKS = (10, 25, BLOCK, 100, 200)
CAUTIOUS, LONG = 20.0, 200

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Stream:
    """Scores of one device in time order, as recorded and with each fault from the first window on."""

    recording: str
    device: str
    scores: Float64
    faulty: Mapping[str, Float64]


@dataclass(frozen=True)
class Promise:
    """Table 1: kept on replicates of the reference; delays in windows, steps in standard deviations."""

    stream: str
    windows: int
    phi: float
    threshold: float
    alarms: int
    alarms_per_10_000: float
    residual_step_found_in_60: float
    residual_step_delay: float
    score_step_1_delay: float
    score_step_2_delay: float


@dataclass(frozen=True)
class BlockRow:
    """Table 2: the threshold and the kept rate by block length."""

    stream: str
    thresholds: dict[int, float]
    alarms_per_10_000: dict[int, float]


@dataclass(frozen=True)
class NewRow:
    """Table 3: alarms where nothing was broken: as fitted, with h of at least 20, and fitted with blocks of 200."""

    reference: str
    judged_on: str
    windows: int
    alarms: int
    alarms_cautious: int
    alarms_long_blocks: int


@dataclass(frozen=True)
class FaultRow:
    """Table 4: over devices and five places of onset each; shares, and the mean move of the score in its deviations."""

    recording: str
    fault: str
    onsets: int
    found_in_60: float
    alarmed_before: float
    score_step: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    parser.add_argument("--cache", type=Path, help="folder that keeps the scores of recordings")
    parser.add_argument("--scores-only", action="store_true", help="fill the cache and stop")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    streams = [stream for name in RECORDINGS for stream in _recorded(name, options.cache)]
    if options.scores_only:
        return
    named = {f"{stream.recording} {stream.device}": stream.scores for stream in streams}
    promises = [
        _promise(name, scores) for name, scores in ({f"AR(1) {phi}": _ar1(phi) for phi in PHIS} | named).items()
    ]
    blocks = [_by_block(name, scores) for name, scores in named.items()]
    new = [*_fresh(), *(row for name in RECORDINGS for row in _unseen([s for s in streams if s.recording == name]))]
    faults = [row for name in RECORDINGS for row in _faults([s for s in streams if s.recording == name])]
    tables: dict[str, Sequence[Any]] = {"promise": promises, "blocks": blocks, "new": new, "faults": faults}
    if options.json:
        print(json.dumps({name: [asdict(row) for row in rows] for name, rows in tables.items()}, indent=1))
    else:
        _print_markdown(promises, blocks, new, faults)


def _recorded(name: str, cache: Path | None) -> Iterator[Stream]:
    selection, devices = RECORDINGS[name]
    if not (DATA / f"{name}.npz").exists():
        return
    dataset = load(DATA / f"{name}.npz", **selection)
    for device in devices:
        path = cache / f"{name}_{device}.npy" if cache else None
        if path and path.exists():
            found = np.load(path)
        else:
            found = _score(dataset, device)
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, found)
        yield Stream(name, device, found[0], dict(zip(FAULTS, found[1:], strict=True)))


def _score(dataset: Dataset, device: str) -> Float64:
    """Train without the device, then score its n windows clean and with every fault: (1 + faults, n)."""
    source = dataset.source
    held = source.groups == device
    train, windows = source.windows[~held], source.windows[held]
    model = fit(train, source.labels[~held], default_spec(dataset), 0, default_epochs(len(train))).model
    reference = fit_features(_features(model, train))
    centre, scale = centre_and_scale(train)
    broken = (corrupt(windows, fault, SEVERITY, scale, seed=int(device), centre=centre) for fault in FAULTS)
    return np.stack([log_scores(reference, _features(model, x)) for x in (windows, *broken)])


def _features(model: Classifier, windows: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        chunks = (torch.from_numpy(windows[start : start + 256]) for start in range(0, len(windows), 256))
        return np.concatenate([model.features(chunk).numpy() for chunk in chunks])


def _ar1(phi: float, seed: int = 0, n: int = SYNTHETIC, count: int = 1) -> Float64:
    """Give stationary series of variance 1: (n,), or (n, count) for more than one."""
    x = np.random.default_rng([int(100 * phi), seed]).normal(size=(n, count))
    for t in range(1, n):
        x[t] = phi * x[t - 1] + np.sqrt(1 - phi**2) * x[t]
    return x[:, 0] if count == 1 else x


def _calibrate(streams: Sequence[Float64], block: int = BLOCK, replicates: int = 1000) -> Cusum:
    rng = np.random.default_rng(0)
    return fit_threshold(
        fit_scores(streams), streams, rng, windows_per_alarm=TARGET, block=block, replicates=replicates
    )


def _promise(name: str, scores: Float64) -> Promise:
    detector = _calibrate([scores], replicates=2000)
    alarms = false_alarms(detector, [scores], np.random.default_rng(1), windows=20_000, replicates=600)

    def delays(step: float, unit: Any) -> Float64:
        return detection_delays(detector, [scores], np.random.default_rng(2), step=step, unit=unit, limit=2000)

    both = [delays(step, "residual") for step in (2.0, -2.0)]
    return Promise(
        name,
        len(scores),
        detector.reference.phi,
        detector.threshold,
        alarms.alarms,
        alarms.per_10_000,
        min(float((found <= PATIENCE).mean()) for found in both),
        max(float(np.median(found)) for found in both),
        float(np.median(delays(1.0, "score"))),
        float(np.median(delays(2.0, "score"))),
    )


def _by_block(name: str, scores: Float64) -> BlockRow:
    thresholds, rates = {}, {}
    for block in BLOCKS:
        detector = _calibrate([scores], block)
        rng = np.random.default_rng(1)
        thresholds[block] = detector.threshold
        rates[block] = false_alarms(detector, [scores], rng, windows=10_000, replicates=500, block=block).per_10_000
    return BlockRow(name, thresholds, rates)


def _alarms(calibration: Sequence[Float64], judged: Float64, replicates: int = 1000) -> tuple[int, int, int]:
    """Count alarms on one stream by the three thresholds of table 3."""
    fitted = _calibrate(calibration, replicates=replicates)
    cautious = replace(fitted, threshold=max(CAUTIOUS, fitted.threshold))
    counts = []
    for detector in (fitted, cautious, _calibrate(calibration, LONG, replicates)):
        state = detector.reset()
        for score in judged:
            state, _ = detector.observe(state, float(score))
        counts.append(int(state.alarms))
    return counts[0], counts[1], counts[2]


def _fresh() -> Iterator[NewRow]:
    """Calibrate on many short AR(1) references; judge each on a long new series of the same process."""
    for phi in PHIS:
        series = _ar1(phi, seed=1, n=FRESH_LENGTH, count=FRESH)
        counts = [_alarms([_ar1(phi, seed=100 + index)], series[:, index], 200) for index in range(FRESH)]
        total = (int(count) for count in np.sum(counts, axis=0))
        yield NewRow(f"AR(1) {phi}, {SYNTHETIC} windows", f"{FRESH} new series", series.size, *total)


def _unseen(streams: Sequence[Stream]) -> Iterator[NewRow]:
    for stream in streams:
        half, name = len(stream.scores) // 2, f"{stream.recording} {stream.device}"
        first, second = stream.scores[:half], stream.scores[half:]
        others = [other.scores for other in streams if other is not stream]
        yield NewRow(name, "itself, in its real order", len(stream.scores), *_alarms([stream.scores], stream.scores))
        yield NewRow(f"{name}, first half", "its second half", len(second), *_alarms([first], second))
        if others:
            yield NewRow(f"the other {len(others)}", name, len(stream.scores), *_alarms(others, stream.scores))


def _faults(streams: Sequence[Stream]) -> Iterator[FaultRow]:
    for fault in ("none", *FAULTS) if streams else ():
        found, before, steps = [], [], []
        for stream in streams:
            half = len(stream.scores) // 2
            detector = _calibrate([stream.scores[:half]])
            broken = stream.faulty.get(fault, stream.scores)
            steps.append(float((broken - stream.scores).mean()) / detector.reference.std)
            for start in np.linspace(half, len(stream.scores) - PATIENCE, FAULT_STARTS).astype(int):
                state, alarms = detector.reset(), 0.0
                for index in range(half, start + PATIENCE):
                    if index == start:
                        alarms = state.alarms
                    state, _ = detector.observe(state, float((broken if index >= start else stream.scores)[index]))
                found.append(state.alarms > alarms)
                before.append(alarms)
        means = [float(np.mean(values)) for values in (found, before, steps)]
        yield FaultRow(streams[0].recording, fault, len(found), *means)


def _print_markdown(
    promises: Sequence[Promise], blocks: Sequence[BlockRow], new: Sequence[NewRow], faults: Sequence[FaultRow]
) -> None:
    print("| stream | windows | phi | h | alarms in 12 million | per 10,000 ", end="")
    print("| step of 2 residual sd: found in 60 | delay | delay, score step of 1 sd | of 2 sd |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for row in promises:
        print(
            f"| {row.stream} | {row.windows} | {row.phi:.2f} | {row.threshold:.1f} | {row.alarms} | "
            f"{row.alarms_per_10_000:.2f} | {100 * row.residual_step_found_in_60:.1f} % | "
            f"{row.residual_step_delay:.0f} | {row.score_step_1_delay:.0f} | {row.score_step_2_delay:.0f} |"
        )
    print("\n| h (alarms per 10,000) |" + "".join(f" block {block} |" for block in BLOCKS))
    print("|" + "---|" * (1 + len(BLOCKS)))
    for table in blocks:
        cells = (f" {table.thresholds[block]:.1f} ({table.alarms_per_10_000[block]:.2f}) |" for block in BLOCKS)
        print(f"| {table.stream} |" + "".join(cells))
    print("\n| alarms per 10,000 (count): calibrated on | judged on | windows | as fitted | h at least 20 ", end="")
    print(f"| blocks of {LONG} |\n|---|---|---|---|---|---|")
    for judged in new:
        counts = (judged.alarms, judged.alarms_cautious, judged.alarms_long_blocks)
        cells = (f" {10_000 * count / judged.windows:.1f} ({count}) |" for count in counts)
        print(f"| {judged.reference} | {judged.judged_on} | {judged.windows} |" + "".join(cells))
    print("\n| recording | fault, severity 3 | onsets | alarm in 60 windows ", end="")
    print("| alarms before, mean | score moves by, sd |\n|---|---|---|---|---|---|")
    for fault in faults:
        print(
            f"| {fault.recording} | {fault.fault} | {fault.onsets} | {100 * fault.found_in_60:.0f} % | "
            f"{fault.alarmed_before:.1f} | {fault.score_step:+.1f} |"
        )


if __name__ == "__main__":
    main()
