"""Could devices whose classes come mixed be given fast statistics? The answer of source devices that are left out.

Run ``python -m benchmarks.mixed_order --data FILE.npz --source KEY=VALUES [--augment RECIPE]``. Every device of the
source is left out of a training, as the policy's calibration does, and streamed through the net that never saw it.
Prints for each, as a Markdown table,

    (1) mixing = mean_t |f_t - f_t-1|^2 / (2 tr Cov(f)), von Neumann's ratio of the features f that the head is given:
                 1 where each window is independent of the one before, near 0 where one class goes on for long

in recorded and in shuffled order, and, shuffled, the accuracy of the net and its change by lifetime statistics of all
layers with the source as 64 and as 256 pseudo-windows. No target is used. docs/results/policy.md draws the conclusion.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from acclimate.adaptation.data.augment import Augmentation, parse_augmentation
from acclimate.adaptation.data.dataset import Split
from acclimate.adaptation.evaluation.run import run_stream
from acclimate.adaptation.method import SourceContext
from acclimate.adaptation.methods.cum_bn import CumBatchNorm
from acclimate.adaptation.model.network import Network
from acclimate.adaptation.model.robust import folds
from acclimate.adaptation.model.spec import NetworkSpec
from acclimate.adaptation.model.train import default_epochs, default_spec, fit
from acclimate.infra.allocator import keep_freed_memory
from acclimate.streams.commands.shared.data_options import data_options
from acclimate.streams.lab.study.selection import selected_dataset
from acclimate.streams.lab.study.tables import points, table

PSEUDO_WINDOWS = (64.0, 256.0)
_BATCH = 8


@dataclass(frozen=True)
class LeftOut:
    """One device by a net that never saw it; accuracies 0 to 1, ``adapted`` one for each of `PSEUDO_WINDOWS`."""

    device: str
    ordered_mixing: float
    shuffled_mixing: float
    accuracy: float
    adapted: tuple[float, ...]


def mixing(features: NDArray[np.float32]) -> float:
    """Return (1) of features (n, F) in the order of arrival, n at least 2; nan where they never change.

    >>> mixing(np.array([[0.0], [0.0], [1.0], [1.0]], dtype=np.float32))
    0.6666666666666666
    """
    rows = features.astype(np.float64)
    variance = rows.var(axis=0).sum()
    return float(np.square(np.diff(rows, axis=0)).sum(axis=1).mean() / (2 * variance)) if variance > 0 else float("nan")


def study(source: Split, spec: NetworkSpec, seed: int, augmentation: Augmentation | None) -> Iterator[LeftOut]:
    """Yield what each device shows that can be left out."""
    for _, test in folds(source.labels, source.groups):
        windows, labels = source.windows[~test], source.labels[~test]
        model = fit(windows, labels, spec, seed, default_epochs(len(labels)), augmentation).model
        context = SourceContext(model, torch.from_numpy(windows[:1]), torch.from_numpy(labels[:1]), seed)
        for device in np.unique(source.groups[test]):
            yield _left_out(context, str(device), source, seed)


def _left_out(context: SourceContext, device: str, source: Split, seed: int) -> LeftOut:
    own = source.groups == device
    windows, labels = source.windows[own], source.labels[own]
    order = np.random.default_rng(seed).permutation(len(labels))
    with torch.no_grad():
        seen = Network(context.model).forward(torch.from_numpy(windows))
    features, answers = seen.features.numpy(), seen.logits.argmax(dim=1).numpy()
    adapted = [
        run_stream(CumBatchNorm(context, pseudo_windows), windows[order], _BATCH, lambda: 0.0)
        for pseudo_windows in PSEUDO_WINDOWS
    ]
    return LeftOut(
        device=device,
        ordered_mixing=mixing(features),
        shuffled_mixing=mixing(features[order]),
        accuracy=float((answers == labels).mean()),
        adapted=tuple(float((found.probabilities.argmax(axis=1) == labels[order]).mean()) for found in adapted),
    )


@click.command(help=__doc__)
@data_options
@click.option("--augment", default="none", show_default=True, help="Recipe of the nets, as `acclimate train` reads it.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
def main(augment: str, seed: int, **selection: Any) -> None:
    """Print the table."""
    keep_freed_memory()
    torch.set_num_threads(1)
    dataset = selected_dataset(0, **selection)
    augmentation = None if augment == "none" else parse_augmentation(augment)
    titles = ["device", "mixing, recorded", "mixing, shuffled", "accuracy, shuffled"]
    rows = [
        [
            found.device,
            f"{found.ordered_mixing:.2f}",
            f"{found.shuffled_mixing:.2f}",
            f"{100 * found.accuracy:.1f} %",
            *(points(adapted - found.accuracy) for adapted in found.adapted),
        ]
        for found in study(dataset.source, default_spec(dataset), seed, augmentation)
    ]
    if not rows:
        raise click.ClickException("no device can be left out: expected two or more, the others showing every class")
    click.echo(table([*titles, *(f"N = {n:g}" for n in PSEUDO_WINDOWS)], rows), nl=False)


if __name__ == "__main__":
    main()
