"""How long to train, judged on source devices that are left out of the training.

Run ``python -m benchmarks.epochs --data FILE.npz --source KEY=VALUES --epochs 10,20``. The source's devices are dealt
into at most six folds; each fold is tested by a net that was trained on the others, at full size. Prints one line per
seed and number of epochs: the mean accuracy over devices, in %. No target is used.
"""

from collections.abc import Iterator
from typing import Any

import click
import numpy as np
import torch

from acclimate.adaptation.data.dataset import Split
from acclimate.adaptation.model.spec import NetworkSpec
from acclimate.adaptation.model.train import default_spec, fit, predict
from acclimate.infra.allocator import keep_freed_memory
from acclimate.streams.commands.shared.data_options import data_options
from acclimate.streams.lab.study.selection import selected_dataset

_FOLDS = 6


def left_out_accuracies(source: Split, spec: NetworkSpec, seed: int, epochs: int) -> Iterator[float]:
    """Yield the accuracy, 0 to 1, of each device by a net that never saw it."""
    names = np.unique(source.groups)
    for number in range(min(_FOLDS, names.size)):
        dealt = names[number::_FOLDS]
        test = np.isin(source.groups, dealt)
        model = fit(source.windows[~test], source.labels[~test], spec, seed, epochs).model
        right = predict(model, source.windows[test]).argmax(axis=1) == source.labels[test]
        for name in dealt:
            yield float(right[source.groups[test] == name].mean())


@click.command(help=__doc__)
@data_options
@click.option("--epochs", default="10,20,40", show_default=True, help="Passes to compare.")
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(1), help="How many seeds, 0 and up.")
def main(epochs: str, seeds: int, **selection: Any) -> None:
    """Print the table."""
    keep_freed_memory()
    torch.set_num_threads(1)
    dataset = selected_dataset(0, **selection)
    for seed in range(seeds):
        for passes in (int(part) for part in epochs.split(",")):
            found = list(left_out_accuracies(dataset.source, default_spec(dataset), seed, passes))
            click.echo(f"seed {seed}, {passes} epochs: {100 * np.mean(found):.1f} % on {len(found)} devices left out")


if __name__ == "__main__":
    main()
