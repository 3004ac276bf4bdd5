"""Which LeanTTA settings serve held-out source windows under synthetic shifts: ``python -m benchmarks.lean_settings``.

Defaults must not be chosen on the targets they are judged on. For the simulated fleet and every recording under
``../shared/data`` that is there, this trains the source model, shifts its held-out source windows (ten stretches, each
with its own gain, offset, noise or all three) and prints the change in accuracy points against the unadapted model:
the mean over shifts, and on the untouched windows. docs/decisions/0007 draws the conclusion.
"""

import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from acclimate.adaptation.data.dataset import Dataset
from acclimate.adaptation.data.load import load
from acclimate.adaptation.data.simulate import simulate_fleet
from acclimate.adaptation.lean.lean_settings import Direction, LeanSettings
from acclimate.adaptation.lean.leantta import adapt_batch
from acclimate.adaptation.lean.shift import measure
from acclimate.adaptation.model.train import predict
from acclimate.streams.lab.making.source_model import SourceModel, make_source_bundle, parse_layers

DATA = Path(__file__).parents[2] / "shared" / "data"
RECORDINGS = {
    "chest_har": {"label": "y4", "source": "device=1-5"},
    "myo_emg": {"label": "y", "source": "device=0-6,10-14"},
    "cwru_bearing": {"label": "y", "source": "load=0"},
}
WINDOWS, STRETCHES = 600, 10
DIRECTIONS: tuple[Direction, ...] = ("target_on_large", "source_on_large")

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Choice:
    layers: str
    tau: float
    lam: float
    direction: Direction
    threshold: float


def main() -> None:
    torch.set_num_threads(1)
    table: dict[Choice, dict[str, tuple[float, float]]] = {}
    names = []
    for name, dataset in _datasets():
        names.append(name)
        with tempfile.TemporaryDirectory() as folder:
            model = make_source_bundle(dataset, Path(folder) / "bundle", seed=0)
        for choice, figures in _study(dataset, model).items():
            table.setdefault(choice, {})[name] = figures
    print(f"shifted/clean: {', '.join(names)}")
    print(f"{'layers':10}  tau  lam  {'direction':15}  thr    mean")
    for choice, row in sorted(table.items(), key=lambda item: -np.mean([shifted for shifted, _ in item[1].values()])):
        mean = np.mean([shifted for shifted, _ in row.values()])
        cells = "  ".join(f"{shifted:+5.1f}/{clean:+5.1f}" for shifted, clean in row.values())
        settings = f"{choice.layers:10} {choice.tau:4} {choice.lam:4}  {choice.direction:15} {choice.threshold:4}"
        print(f"{settings}  {mean:+6.2f}  {cells}")


def _datasets() -> Iterator[tuple[str, Dataset]]:
    yield "simulated", simulate_fleet(0)
    for name, selection in RECORDINGS.items():
        path = DATA / f"{name}.npz"
        if path.exists():
            yield name, load(path, **selection)


def _study(dataset: Dataset, model: SourceModel) -> Mapping[Choice, tuple[float, float]]:
    trained, layers = model.trained, len(model.settings.layers)
    network = trained.measured_model  # the returned model has seen the held-out windows
    held_out = np.flatnonzero(trained.held_out)
    picks = held_out[:: max(1, len(held_out) // WINDOWS)]
    labels = dataset.source.labels[picks]
    shifted = _shifts(dataset.source.windows[picks])
    plain = {name: predict(network, x).argmax(axis=1) == labels for name, x in shifted.items()}
    magnitude = {name: measure(network, x, model.calibration).magnitude for name, x in shifted.items()}
    result = {}
    grid = itertools.product(("first", "first-half", "all"), (0.0, 0.25, 0.5), (0.5, 1.0, 2.0), DIRECTIONS)
    for which, tau, lam, direction in grid:
        settings = LeanSettings(tau, lam, parse_layers(which, layers), direction)
        adapted = {name: _adapted(network, x, settings) == labels for name, x in shifted.items()}
        for threshold in (0.0, 1.0):
            gain = {
                name: 100
                * float(np.where(magnitude[name] >= threshold, adapted[name], plain[name]).mean() - plain[name].mean())
                for name in shifted
            }
            clean = gain.pop("clean")
            result[Choice(which, tau, lam, direction, threshold)] = (float(np.mean(list(gain.values()))), clean)
    return result


def _shifts(x: Float32) -> dict[str, Float32]:
    rng = np.random.default_rng(5)
    sigma = x.std(axis=(0, 2), keepdims=True)
    channels = (1, x.shape[1], 1)

    def by_stretch(change: Callable[[Float32], Float32]) -> Float32:
        return np.concatenate([change(part) for part in np.array_split(x, STRETCHES)]).astype(np.float32)

    return {
        "clean": x,
        "gain": by_stretch(lambda v: v * np.exp(0.5 * rng.normal(size=channels))),
        "offset": by_stretch(lambda v: v + sigma * rng.normal(size=channels)),
        "noise": by_stretch(lambda v: v + 0.3 * sigma * rng.normal(size=v.shape)),
        "all three": by_stretch(
            lambda v: (
                v * np.exp(0.4 * rng.normal(size=channels))
                + 0.7 * sigma * rng.normal(size=channels)
                + 0.15 * sigma * rng.normal(size=v.shape)
            )
        ),
    }


def _adapted(model: torch.nn.Module, x: Float32, settings: LeanSettings) -> npt.NDArray[np.int64]:
    chunks = [torch.from_numpy(part) for part in np.array_split(x, 4)]
    labels: npt.NDArray[np.int64] = (
        torch.cat([adapt_batch(model, c, settings).logits for c in chunks]).argmax(1).numpy()
    )
    return labels


if __name__ == "__main__":
    main()
