"""Generators in three tables: on unshifted data, in fewer bits, and on networks that they were not taught with.

Run ``python -m benchmarks.generators --evaluation DIR --evaluation DIR ...`` with folders of `acclimate evaluate` that
hold the generators ``mgg`` and ``generalizeformer``. All figures are changes in points of accuracy against the source
of the same kind, means over seeds and groups, the worst group in brackets. docs/generators.md holds a run.

unshifted   the source's own windows, device by device: in order and shuffled, in batches of 1, 8 and 64; what is lost
            here is lost for nothing; ten stretches of 64 windows, spread over each recording, so that every activity or
            state has its share; beside them SGD and Adam on MGG's loss
compressed  targets in order and shuffled in batches of 64, weights in 32, 16 and 8 bits
transfer    every MGG, taught on a plain source, on the sources of every evaluation: the generator of another data set,
            its network of another width and depth among them, same seed; beside it SGD and Adam on its loss
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from acclimate.adaptation.data.dataset import Dataset, Split
from acclimate.adaptation.generators.compression import PRECISIONS, compressed, stored_bytes
from acclimate.adaptation.generators.episodes import STRETCHES, stretches
from acclimate.adaptation.generators.generator import Generator
from acclimate.adaptation.methods.catalogue import make_method
from acclimate.adaptation.methods.prepared import Prepared
from acclimate.adaptation.methods.source import Unadapted
from acclimate.adaptation.model.train import default_spec
from acclimate.infra.allocator import keep_freed_memory
from acclimate.streams.lab.study.prepare import PreparedSource, load_source, read_facts
from benchmarks.lean_layers import accuracies, load_data

NAMES = ("mgg", "generalizeformer")
PLAIN = ("same-loss-sgd", "same-loss-adam")  # what a learned rule is to be held against
_BATCH = 64


@dataclass(frozen=True)
class Evaluated:
    """One evaluation: its recordings and its sources with their generators."""

    name: str
    dataset: Dataset
    sources: Mapping[str, Sequence[PreparedSource]]  # by recipe


def main() -> None:
    parser = argparse.ArgumentParser(description="Generators: unshifted, compressed, transferred.")
    parser.add_argument("--evaluation", type=Path, action="append", required=True, help="folder of an evaluation")
    parser.add_argument("--seeds", type=int, default=3, help="how many of its seeds")
    parser.add_argument("--table", choices=_TABLES, action="append", help="one of the three; default: all")
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    evaluated = [load(folder, arguments.seeds) for folder in arguments.evaluation]
    tables = {name: list(_TABLES[name](evaluated)) for name in arguments.table or _TABLES}
    if arguments.json:
        print(json.dumps(tables, indent=1))
        return
    for name, rows in tables.items():
        print(f"## {name}\n\n{markdown(rows)}\n")


def load(folder: Path, seeds: int) -> Evaluated:
    """Load an evaluation's recordings and those of its sources that have generators."""
    dataset = load_data(folder, None)
    sources: dict[str, list[PreparedSource]] = {}
    for facts in read_facts(folder):
        if facts.seed < seeds:
            source = load_source(folder, dataset, facts.recipe, facts.seed)
            if set(NAMES) <= set(source.prepared.generators):
                sources.setdefault(facts.recipe, []).append(source)
    return Evaluated(folder.name.rpartition("-")[2], dataset, sources)


def shuffled(split: Split, seed: int) -> Split:
    """Return the windows of each group in random order."""
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(np.arange(len(split))[part]) for _, part in split.streams()])
    return Split(split.windows[order], split.labels[order], split.groups[order], split.rows[order])


def spread(split: Split) -> Split:
    """Return ten stretches of 64 windows, spread evenly over each group; all windows of a group that has no more."""
    kept = []
    for _, part in split.streams():
        rows = np.arange(len(split))[part]
        kept.append(rows[stretches(len(rows), _BATCH)] if len(rows) > STRETCHES * _BATCH else rows)
    keep = np.concatenate(kept)
    return Split(split.windows[keep], split.labels[keep], split.groups[keep], split.rows[keep])


def change(
    sources: Sequence[PreparedSource], split: Callable[[int], Split], name: str, batch: int
) -> tuple[float, float]:
    """Return the change against the source, mean over seeds and groups and of the worst group, in points."""
    found = []
    for seed, source in enumerate(sources):
        stream = split(seed)
        with_it = accuracies(make_method(name, source.context, source.prepared), stream, batch)
        found.append(np.array(with_it) - np.array(accuracies(Unadapted(source.context), stream, 256)))
    changes = 100 * np.array(found)
    return float(changes.mean()), float(changes.mean(axis=0).min())


def orders(split: Split) -> dict[str, Callable[[int], Split]]:
    """Return the streams by name, each given a seed."""
    return {"ordered": lambda _seed: split, "shuffled": lambda seed: shuffled(split, seed)}


def unshifted(evaluated: Sequence[Evaluated]) -> Iterator[dict[str, str]]:
    """Yield a row per evaluation, kind of source and method."""
    for each in evaluated:
        own = spread(each.dataset.source)
        for recipe, sources in each.sources.items():
            for name in (*PLAIN, *NAMES):
                row = {"recordings": each.name, "source": recipe, "method": name}
                for order, stream in orders(own).items():
                    for batch in (1, 8, 64):
                        row[f"{order}, {batch}"] = points(*change(sources, stream, name, batch))
                yield row


def compression(evaluated: Sequence[Evaluated]) -> Iterator[dict[str, str]]:
    """Yield a row per evaluation, kind of source, generator and precision."""
    for each in evaluated:
        assert each.dataset.target is not None
        for recipe, sources in each.sources.items():
            for name in NAMES:
                for precision in PRECISIONS:
                    whole = [source.prepared.generator(name) for source in sources]
                    small = [
                        with_generator(source, name, compressed(generator, precision))
                        for source, generator in zip(sources, whole, strict=True)
                    ]
                    size = stored_bytes(whole[0], precision)
                    row = {"recordings": each.name, "source": recipe, "generator": name, "weights": precision}
                    row["KiB"] = f"{size / 1024:.1f}"
                    for order, stream in orders(each.dataset.target).items():
                        row[order] = points(*change(small, stream, name, _BATCH))
                    yield row


def transfer(evaluated: Sequence[Evaluated]) -> Iterator[dict[str, str]]:
    """Yield a row per evaluation, kind of source and origin of the MGG."""
    for each in evaluated:
        for recipe, sources in each.sources.items():
            for origin in evaluated:
                lent = [
                    with_generator(source, "mgg", other.prepared.generator("mgg"))
                    for source, other in zip(sources, origin.sources["none"], strict=True)
                ]
                yield _target_row(each, recipe, "mgg", origin.name, lent)
            for name in PLAIN:
                yield _target_row(each, recipe, name, "", sources)


def _target_row(
    each: Evaluated, recipe: str, name: str, taught_on: str, sources: Sequence[PreparedSource]
) -> dict[str, str]:
    spec = default_spec(each.dataset)
    row = {"used on": f"{each.name} ({spec.kind}, {spec.widths})", "source": recipe, "method": name}
    row["taught on"] = taught_on
    assert each.dataset.target is not None
    for order, stream in orders(each.dataset.target).items():
        row[order] = points(*change(sources, stream, name, _BATCH))
    return row


_TABLES = {"unshifted": unshifted, "compressed": compression, "transfer": transfer}


def with_generator(source: PreparedSource, name: str, generator: Generator) -> PreparedSource:
    """Return the source with this generator in the place of its own."""
    return replace(source, prepared=Prepared(generators={**source.prepared.generators, name: generator}))


def points(mean: float, worst: float) -> str:
    """Write a change and that of the worst group.

    >>> points(1.25, -0.5)
    '+1.2 (-0.5)'
    """
    return f"{mean:+.1f} ({worst:+.1f})"


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """Return a table; all rows have the same columns."""
    head = list(rows[0])
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row.values())} |" for row in rows)])


if __name__ == "__main__":
    main()
