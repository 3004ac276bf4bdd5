"""Would the source's own devices let a generator answer always?

Run ``python -m benchmarks.generator_rungs --data FILE.npz --source KEY=VALUES``. The question that the policy puts to
its rungs (`acclimate.adaptation.methods.policy_calibration`) is put to MGG and GeneralizeFormer, beside those rungs: a
device is left out, a network trained as the policy does it and both generators meta-trained on the others, and the
device streamed in time order in batches of 64. Prints every device and what the policy's own rule says: the lower end
of the one-sided 99 % interval of the mean gain above 0, at least 4 devices, none that loses more than 2 points. With
``--severity`` the device is shifted by each kind of the simulator's tuning half, and each counts as one. No target is
used.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from acclimate.adaptation.data.augment import Augmentation, parse_augmentation
from acclimate.adaptation.data.corruptions import TUNING, TUNING_MIXTURES, applicable, centre_and_scale, corrupt
from acclimate.adaptation.data.dataset import Split
from acclimate.adaptation.evaluation.run import run_stream
from acclimate.adaptation.generators.episodes import Recordings
from acclimate.adaptation.generators.generator import VARIANTS
from acclimate.adaptation.generators.meta_train import meta_train
from acclimate.adaptation.method import Method, SourceContext
from acclimate.adaptation.methods.catalogue import make_method
from acclimate.adaptation.methods.policy import Policy
from acclimate.adaptation.methods.policy_calibration import LEAST_DEVICES, MOST_HARM, lower_end, trained_on
from acclimate.adaptation.methods.policy_settings import PolicySettings, Rung
from acclimate.adaptation.methods.prepared import Prepared
from acclimate.adaptation.model.robust import folds
from acclimate.adaptation.model.spec import NetworkSpec
from acclimate.adaptation.model.train import default_spec
from acclimate.infra.allocator import keep_freed_memory
from acclimate.streams.commands.shared.data_options import data_options
from acclimate.streams.lab.study.selection import selected_dataset

NAMES = ("mgg", "generalizeformer")
_RUNGS: tuple[Rung, ...] = ("statistics", "prototypes", "statistics+prototypes")
_PSEUDO_WINDOWS = 256.0  # of a rung that is to be proven
_BATCH = 64

Rows = Sequence[tuple[str, NDArray[np.float32]]]


def left_out(
    source: Split, spec: NetworkSpec, seed: int, augmentation: Augmentation | None, severity: float | None = None
) -> Iterator[tuple[str, str, float, float]]:
    """Yield device (and kind of shift), what answered, and the accuracy without and with it, 0 to 1."""
    centre, scale = centre_and_scale(source.windows)
    kinds = [kind for kind in (*TUNING, *TUNING_MIXTURES) if applicable(kind, spec.channels, spec.length)]
    for _, test in folds(source.labels, source.groups):
        rows = np.flatnonzero(~test)
        context = trained_on(rows, source.windows, source.labels, spec, seed, augmentation)
        others = Recordings(source.windows[rows], source.labels[rows], source.groups[rows])
        taught = {name: meta_train(context.model, others, VARIANTS[name], seed).generator for name in NAMES}
        recorded = replace(context, recorded=torch.from_numpy(others.windows))
        methods = methods_of(recorded, Prepared(generators=taught))
        for device in np.unique(source.groups[test]):
            own = source.groups == device
            windows, labels = source.windows[own], source.labels[own]
            shifted: Rows = [(str(device), windows)]
            if severity is not None:
                shifted = [
                    (f"{device}, {kind}", corrupt(windows, kind, severity, scale, seed, centre=centre))
                    for kind in kinds
                ]
            for label, each in shifted:
                without = _accuracy(make_method("source", context), each, labels)
                for name, method in methods.items():
                    yield label, name, without, _accuracy(method, each, labels)


def methods_of(context: SourceContext, prepared: Prepared) -> dict[str, Method]:
    """Return the generators, and the policy's rungs as they are when they always answer."""
    rungs: dict[str, Method] = {
        rung: Policy(context, PolicySettings(rung, False, 1.0, 1.0, _PSEUDO_WINDOWS, weak=False)) for rung in _RUNGS
    }
    return {**{name: make_method(name, context, prepared) for name in NAMES}, **rungs}


def _accuracy(method: Method, windows: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    answers = run_stream(method, windows, _BATCH, lambda: 0.0).probabilities.argmax(axis=1)
    return float((answers == labels).mean())


def verdict(gains: NDArray[np.float64]) -> dict[str, float | bool]:
    """Return what the policy's rule says of these gains, one per device.

    >>> verdict(np.array([0.05, 0.06, 0.05, 0.06]))["proven"], verdict(np.array([0.5, 0.5, 0.5, -0.03]))["proven"]
    (True, False)
    """
    lower = lower_end(gains)
    proven = bool(gains.size >= LEAST_DEVICES and gains.min() >= -MOST_HARM and lower > 0)
    return {"gain": float(gains.mean()), "lower": lower, "worst": float(gains.min()), "proven": proven}


@click.command(help=__doc__)
@data_options
@click.option("--augment", default="none", show_default=True, help="Recipe of the source model.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of everything random.")
@click.option("--severity", type=click.FloatRange(1, 5), help="Shift the devices left out; default: as recorded.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
def main(augment: str, seed: int, severity: float | None, as_json: bool, **selection: Any) -> None:
    """Print a line per device and generator, then the verdicts."""
    keep_freed_memory()
    torch.set_num_threads(1)
    dataset = selected_dataset(0, **selection)
    augmentation = None if augment == "none" else parse_augmentation(augment)
    rows: list[tuple[str, str, float, float]] = []
    for device, name, without, with_it in left_out(dataset.source, default_spec(dataset), seed, augmentation, severity):
        rows.append((device, name, without, with_it))
        if not as_json:
            click.echo(f"{name} on {device}: {100 * without:.1f} % to {100 * with_it:.1f} %")
    names = (*NAMES, *_RUNGS)
    gains = {name: np.array([with_it - without for _, of, without, with_it in rows if of == name]) for name in names}
    verdicts = {name: verdict(each) for name, each in gains.items()}
    if as_json:
        devices = [dict(zip(("device", "answers", "source", "with"), row, strict=True)) for row in rows]
        click.echo(json.dumps({"devices": devices, "verdicts": verdicts}))
        return
    for name, found in verdicts.items():
        mean, low, worst = (f"{100 * found[key]:+.1f}" for key in ("gain", "lower", "worst"))
        says = "may answer always" if found["proven"] else "not proven"
        click.echo(f"{name}: {mean} points on {gains[name].size}, lower end {low}, worst {worst}: {says}")


if __name__ == "__main__":
    main()
