"""Would the source's own devices let a generator answer always?

Run ``python -m benchmarks.generator_rungs --data FILE.npz --source KEY=VALUES``. The question that the policy puts to
its rungs (`adaptation.policy_calibration`) is put to MGG and GeneralizeFormer: a device is left out, a net trained and
both generators meta-trained on the others, and the device streamed in time order in batches of 64, from what the
generator is and knows then. Prints every device and what the policy's own rule says: the lower end of the one-sided
99 % interval of the mean gain above 0, at least 4 devices, none that loses more than 2 points. No target is used.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import click
import numpy as np
import torch

from adaptation.augment import Augmentation, parse_augmentation
from adaptation.dataset import Split
from adaptation.evaluation.run import run_stream
from adaptation.generators.episodes import Recordings
from adaptation.generators.generator import VARIANTS
from adaptation.generators.meta_train import meta_train
from adaptation.methods.catalogue import make_method
from adaptation.methods.method import SourceContext
from adaptation.policy_calibration import LEAST_DEVICES, MOST_HARM, lower_end
from adaptation.robust import folds
from adaptation.spec import NetworkSpec
from adaptation.train import default_epochs, default_spec, fit
from infra.allocator import keep_freed_memory
from streams.commands.data_options import data_options, selected_dataset

NAMES = ("mgg", "generalizeformer")
_BATCH = 64
_SAMPLE = 512


def left_out(
    source: Split, spec: NetworkSpec, seed: int, augmentation: Augmentation | None
) -> Iterator[tuple[str, str, float, float]]:
    """Yield device, generator, and the accuracy without and with it, 0 to 1."""
    for _, test in folds(source.labels, source.groups):
        windows, labels, groups = source.windows[~test], source.labels[~test], source.groups[~test]
        model = fit(windows, labels, spec, seed, default_epochs(len(windows)), augmentation).model
        rows = np.linspace(0, len(windows) - 1, min(_SAMPLE, len(windows))).astype(np.int64)
        context = SourceContext(model, torch.from_numpy(windows[rows]), torch.from_numpy(labels[rows]), seed)
        for name in NAMES:
            taught = meta_train(model, Recordings(windows, labels, groups), VARIANTS[name], seed).generator
            method = make_method(name, replace(context, generators={name: taught}))
            for device in np.unique(source.groups[test]):
                own = source.groups == device
                found = [
                    run_stream(each, source.windows[own], _BATCH, lambda: 0.0).probabilities.argmax(axis=1)
                    for each in (make_method("source", context), method)
                ]
                without, with_it = (float((answers == source.labels[own]).mean()) for answers in found)
                yield str(device), name, without, with_it


@click.command(help=__doc__)
@data_options
@click.option("--augment", default="none", show_default=True, help="Recipe of the source model.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of everything random.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
def main(augment: str, seed: int, as_json: bool, **selection: Any) -> None:
    """Print a line per device and generator, then the verdicts."""
    keep_freed_memory()
    torch.set_num_threads(1)
    dataset = selected_dataset(0, **selection)
    augmentation = None if augment == "none" else parse_augmentation(augment)
    rows = []
    for device, name, without, with_it in left_out(dataset.source, default_spec(dataset), seed, augmentation):
        rows.append({"device": device, "generator": name, "source": without, "with": with_it})
        if not as_json:
            click.echo(f"{name} on {device}: {100 * without:.1f} % to {100 * with_it:.1f} %")
    verdicts = []
    for name in NAMES:
        gains = np.array([row["with"] - row["source"] for row in rows if row["generator"] == name], dtype=np.float64)
        lower = lower_end(gains)
        proven = bool(gains.size >= LEAST_DEVICES and gains.min() >= -MOST_HARM and lower > 0)
        figures = {"gain": float(gains.mean()), "lower": lower, "worst": float(gains.min())}
        verdicts.append({"generator": name, **figures, "proven": proven})
        if not as_json:
            mean, low, worst = (f"{100 * value:+.1f}" for value in figures.values())
            says = "may answer always" if proven else "not proven"
            click.echo(f"{name}: {mean} points on {gains.size} devices, lower end {low}, worst {worst}: {says}")
    if as_json:
        click.echo(json.dumps({"devices": rows, "verdicts": verdicts}))


if __name__ == "__main__":
    main()
