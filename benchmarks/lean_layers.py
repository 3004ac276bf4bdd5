"""Which layers LeanTTA should correct, and what recalibration adds.

Run ``python -m benchmarks.lean_layers --evaluation DIR`` with the folder of an `acclimate evaluate`. Its source models
are used, every seed and kind of source that is there, and its targets are streamed in recorded order. This prints, as a
Markdown table or with ``--json``, the change in accuracy against the source alone of

* both directions of LeanTTA, otherwise with the default settings, with each BatchNorm layer alone, the first half, the
  last half, and all of them; the middle layer of an odd number belongs to both halves;
* the hybrid, with the default settings of LeanTTA, over periods and momenta.

A gain is in points of accuracy, the mean over groups; a group counts as harmed here where it loses more than half a
point (the evaluation's own tables judge harm by a bootstrap). These are figures on targets: they explain methods, and
no default may be chosen by them. docs/lean-layers.md holds a run.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from acclimate.adaptation.data.dataset import Dataset, Split
from acclimate.adaptation.errors import ConfigError, NotAdaptable
from acclimate.adaptation.evaluation.run import run_stream
from acclimate.adaptation.evaluation.streams import every
from acclimate.adaptation.lean.lean_settings import Direction, LeanSettings
from acclimate.adaptation.method import Method, SourceContext
from acclimate.adaptation.methods.layer_choice import first_half
from acclimate.adaptation.methods.leantta import Leantta, LeanttaHybrid
from acclimate.adaptation.methods.source import Unadapted
from acclimate.adaptation.model.batch_norms import batch_norms
from acclimate.infra.allocator import keep_freed_memory
from acclimate.streams.lab.evaluate.options import EvaluationOptions, binding
from acclimate.streams.lab.study.folder import read_binding
from acclimate.streams.lab.study.prepare import load_source, read_facts
from acclimate.streams.lab.study.selection import SIMULATION_SEED, selected_dataset

DATA = Path(__file__).parents[2] / "shared" / "data"
PERIODS = (32, 128, 512, 2048)
MOMENTA = (0.1, 0.5)
HARM_POINTS = 0.5
_DIRECTIONS: dict[str, Direction] = {"leantta": "target_on_large", "leantta-a": "source_on_large"}
_STATELESS_BATCH, _HYBRID_BATCH = 256, 64  # neither changes an answer, only the time that it takes


@dataclass(frozen=True)
class Variant:
    """One way to run LeanTTA; period and momentum of the hybrid only."""

    method: str
    layers: str
    flags: tuple[bool, ...]
    period: int | None = None
    momentum: float | None = None


@dataclass(frozen=True)
class Row:
    """What one variant gave on one kind of source; all in points of accuracy.

    Attributes:
        source: Recipe of the source.
        variant: What was run.
        gain: Mean over seeds and groups.
        gain_by_seed: Mean over groups.
        worst: Change of the worst group, averaged over seeds.
        harmed: Share of groups, over all seeds, that lose more than `HARM_POINTS`.
    """

    source: str
    variant: Variant
    gain: float
    gain_by_seed: tuple[float, ...]
    worst: float
    harmed: float


def main() -> None:
    parser = argparse.ArgumentParser(description="LeanTTA by layers, and its hybrid by period.")
    parser.add_argument("--evaluation", type=Path, required=True, help="folder of an evaluation, with its sources")
    parser.add_argument("--data", type=Path, help=f"its file of recordings; looked for in {DATA} when not given")
    parser.add_argument("--seeds", type=int, help="how many of its seeds; all when not given")
    parser.add_argument("--stride", type=int, default=1, help="every how many-th window of each group")
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    dataset = load_data(arguments.evaluation, arguments.data)
    facts = [
        found for found in read_facts(arguments.evaluation) if arguments.seeds is None or found.seed < arguments.seeds
    ]
    assert dataset.target is not None  # load_data has checked it
    target = every(dataset.target, arguments.stride)
    rows = []
    for recipe in dict.fromkeys(found.recipe for found in facts):
        seeds = [found.seed for found in facts if found.recipe == recipe]
        rows += study(recipe, [load_source(arguments.evaluation, dataset, recipe, s).context for s in seeds], target)
    print(json.dumps([asdict(row) for row in rows], indent=2) if arguments.json else markdown(rows))


def load_data(evaluation: Path, data: Path | None) -> Dataset:
    """Load what an evaluation was run on.

    Raises:
        ConfigError: The file is another one, or is not found.
    """
    bound = read_binding(evaluation)
    if bound["data_sha256"] is not None and data is None:
        data = DATA / bound["data"]
    selection = {name: tuple(value) if isinstance(value, list) else value for name, value in bound["selection"].items()}
    options = EvaluationOptions(selection={**selection, "data": data}, methods=("source",))
    if binding(options)["data_sha256"] != bound["data_sha256"]:
        raise ConfigError(f"{evaluation} was evaluated on another {bound['data']}; give that one with --data")
    dataset = selected_dataset(SIMULATION_SEED, **options.selection)
    if dataset.target is None:
        raise ConfigError(f"{evaluation} has no target")
    return replace(dataset, target=every(dataset.target, bound["stride"]))


def variants(layers: int) -> list[Variant]:
    """Return all that is compared for a network with this many BatchNorm layers.

    >>> [variant.layers for variant in variants(3)[:6]]
    ['1 alone', '2 alone', '3 alone', 'first half', 'last half', 'all']
    """
    choices = {f"{layer + 1} alone": tuple(index == layer for index in range(layers)) for layer in range(layers)}
    half = first_half(layers)
    choices |= {"first half": half, "last half": half[::-1], "all": (True,) * layers}
    default = LeanSettings.for_layers(layers).layers
    return [
        *(Variant(method, name, flags) for method in _DIRECTIONS for name, flags in choices.items()),
        *(Variant("leantta-hybrid", "default", default, period, share) for period in PERIODS for share in MOMENTA),
    ]


def make(variant: Variant, context: SourceContext) -> Method:
    """Configure a variant."""
    settings = replace(LeanSettings.for_layers(len(variant.flags)), layers=variant.flags)
    if variant.period is not None and variant.momentum is not None:
        return LeanttaHybrid(context, settings, variant.period, variant.momentum)
    return Leantta(context, replace(settings, direction=_DIRECTIONS[variant.method]))


def study(recipe: str, contexts: Sequence[SourceContext], target: Split) -> list[Row]:
    """Run every variant on sources of one kind, one per seed; those that the network has nothing for are left out."""
    base = [accuracies(Unadapted(context), target, _STATELESS_BATCH) for context in contexts]
    rows = []
    for variant in variants(len(batch_norms(contexts[0].model))):
        batch = _STATELESS_BATCH if variant.period is None else _HYBRID_BATCH
        try:
            found = [accuracies(make(variant, context), target, batch) for context in contexts]
        except NotAdaptable:
            continue
        changes = 100 * (np.array(found) - np.array(base))  # (seeds, groups)
        rows.append(summarise(recipe, variant, changes))
    return rows


def accuracies(method: Method, target: Split, batch: int) -> list[float]:
    """Return the accuracy on each group, 0 to 1, each streamed from a fresh state."""
    found = []
    for _, part in target.streams():
        answers = run_stream(method, target.windows[part], batch, lambda: 0.0).probabilities.argmax(axis=1)
        found.append(float((answers == target.labels[part]).mean()))
    return found


def summarise(recipe: str, variant: Variant, changes: NDArray[np.float64]) -> Row:
    """Turn changes (seeds, groups) in points into a row."""
    return Row(
        source=recipe,
        variant=variant,
        gain=float(changes.mean()),
        gain_by_seed=tuple(changes.mean(axis=1).tolist()),
        worst=float(changes.min(axis=1).mean()),
        harmed=float((changes < -HARM_POINTS).mean()),
    )


def markdown(rows: Sequence[Row]) -> str:
    """Write the table: a row per variant, three columns per kind of source."""
    sources = list(dict.fromkeys(row.source for row in rows))
    found = {(row.variant, row.source): row for row in rows}
    titles = [f"{source}: {what}" for source in sources for what in ("gain by seed", "worst group", "harmed")]
    lines = [
        f"| {' | '.join(('method', 'layers', 'period', 'momentum', *titles))} |",
        f"|{'---|' * (4 + len(titles))}",
    ]
    for variant in dict.fromkeys(row.variant for row in rows):
        cells = [variant.method, variant.layers, str(variant.period or ""), str(variant.momentum or "")]
        for row in (found[variant, source] for source in sources):
            seeds = " ".join(f"{gain:+.1f}" for gain in row.gain_by_seed)
            mean = "" if len(row.gain_by_seed) == 1 else f"**{row.gain:+.1f}** of "
            cells += [f"{mean}{seeds}", f"{row.worst:+.1f}", f"{100 * row.harmed:.0f} %"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
