"""What would generators gain behind the policy's gate, in the place of the rung that answers there?

Run ``python -m benchmarks.generator_gate --evaluation DIR ...`` with folders of `acclimate evaluate` that hold the
generators ``mgg`` and ``generalizeformer``. The policy is calibrated as it ships and streams every target in time
order; where it lets its rung answer, each generator's answers (batches of 64, from the device's first window on) are
put in the place of the rung's, and elsewhere the source answers. Prints a row per evaluation, kind of source and seed:
the share of windows that the gate let through, the source's accuracy in %, and changes in points, means over groups.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from acclimate.adaptation.data.augment import parse_augmentation
from acclimate.adaptation.evaluation.run import run_stream
from acclimate.adaptation.methods.catalogue import make_method
from acclimate.adaptation.methods.policy import Policy
from acclimate.adaptation.methods.policy_calibration import calibrate_policy
from acclimate.adaptation.methods.policy_settings import PolicySettings
from acclimate.adaptation.model.train import default_spec
from acclimate.infra.allocator import keep_freed_memory
from acclimate.streams.lab.study.prepare import PreparedSource
from benchmarks.generators import NAMES, Evaluated, load, markdown

_BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description="Generators behind the policy's gate.")
    parser.add_argument("--evaluation", type=Path, action="append", required=True, help="folder of an evaluation")
    parser.add_argument("--seeds", type=int, default=3, help="how many of its seeds")
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    rows = [row for folder in arguments.evaluation for row in gated(load(folder, arguments.seeds))]
    print(json.dumps(rows, indent=1) if arguments.json else markdown(rows))


def gated(evaluated: Evaluated) -> Iterator[dict[str, str]]:
    """Yield a row per kind of source and seed."""
    source, target = evaluated.dataset.source, evaluated.dataset.target
    assert target is not None
    spec = default_spec(evaluated.dataset)
    for recipe, sources in evaluated.sources.items():
        augmentation = None if recipe == "none" else parse_augmentation(recipe)
        for prepared in sources:
            seed = prepared.context.seed
            settings = calibrate_policy(source.windows, source.labels, source.groups, spec, seed, augmentation)
            found = [
                compared(prepared, settings, target.windows[part], target.labels[part]) for _, part in target.streams()
            ]
            means = 100 * np.mean(found, axis=0)
            yield {
                "recordings": evaluated.name,
                "source": recipe,
                "seed": str(seed),
                "rung": settings.rung + (", gated" if settings.gated else ""),
                "let through": f"{means[0]:.0f} %",
                "source alone": f"{means[1]:.1f} %",
                **{name: f"{value:+.1f}" for name, value in zip(("rung alone", *NAMES), means[2:], strict=True)},
            }


def compared(
    source: PreparedSource, settings: PolicySettings, windows: NDArray[np.float32], labels: NDArray[np.int64]
) -> Sequence[float]:
    """Return the share let through, the source's accuracy, and the changes by the rung and each generator, 0 to 1."""
    policy, through, by_rung = Policy(source.context, settings), [], []
    state = policy.reset()
    for window in torch.split(torch.from_numpy(windows), 1):  # one receipt each; batches make no difference to it
        state, step = policy.adapt_batch(state, window)
        by_rung.append(step.probabilities.argmax(dim=1).numpy())
        through.append(step.receipts[0]["rung"] != "source")
    mask = np.array(through)
    unadapted = _answers(source, "source", windows)
    accuracy = float((unadapted == labels).mean())
    answers = [np.concatenate(by_rung), *(np.where(mask, _answers(source, name, windows), unadapted) for name in NAMES)]
    return [float(mask.mean()), accuracy, *(float((each == labels).mean()) - accuracy for each in answers)]


def _answers(source: PreparedSource, name: str, windows: NDArray[np.float32]) -> NDArray[np.int64]:
    answers: NDArray[np.int64] = run_stream(
        make_method(name, source.context, source.prepared), windows, _BATCH, lambda: 0.0
    ).probabilities.argmax(axis=1)
    return answers


if __name__ == "__main__":
    main()
