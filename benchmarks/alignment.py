"""Cross-task alignment: do its gradients point where labels would, and what do its constants decide?

Run ``python -m benchmarks.alignment --evaluation DIR --evaluation DIR ...`` with folders of `acclimate evaluate` that
hold the aligned encoder ``cta``. docs/results/cta.md holds a run.

gradients    while CTA goes along each target in time order, batch by batch of 64: the cosine between the gradient of
             its own task and that of the cross-entropy with the true labels, both of what CTA moves. Mean over the
             first, middle and last third of the streams, the share above zero, and the correlation over groups and
             seeds of a group's mean cosine with what CTA gains on it. Labels are for this table alone
sensitivity  CTA's change on targets, in time order and shuffled, with other rates of its steps, temperatures and
             projector widths (each of these aligned anew); one seed
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy

from acclimate.adaptation.alignment.align import align
from acclimate.adaptation.alignment.aligned import Aligned, AlignmentSettings
from acclimate.adaptation.alignment.tasks import Task
from acclimate.adaptation.alignment.views import Views
from acclimate.adaptation.method import SourceContext, State
from acclimate.adaptation.methods.cta import Cta
from acclimate.adaptation.methods.source import Unadapted
from acclimate.adaptation.model.network import Network
from acclimate.adaptation.model.source_units import SourceUnits
from acclimate.adaptation.model.train import default_epochs
from acclimate.adaptation.state.optimizers import gradients_of
from acclimate.infra.allocator import keep_freed_memory
from acclimate.streams.lab.study.prepare import PreparedSource, load_source, read_facts
from benchmarks.generators import Evaluated, markdown, points, shuffled
from benchmarks.lean_layers import accuracies, load_data

_BATCH = 64
SETTINGS: Mapping[str, AlignmentSettings] = {
    "tau_a 0.05": AlignmentSettings(temperature=0.05),
    "tau_a 0.5": AlignmentSettings(temperature=0.5),
    "tau_u 0.1": AlignmentSettings(ssl_temperature=0.1),
    "tau_u 0.5": AlignmentSettings(ssl_temperature=0.5),
    "d 16": AlignmentSettings(width=16),
    "d 128": AlignmentSettings(width=128),
}
RATES = (0.0, 1e-3, 1e-2, 1e-1)  # 1e-3 is what CTA has


def main() -> None:
    parser = argparse.ArgumentParser(description="CTA: cosine of gradients, and sensitivity.")
    parser.add_argument("--evaluation", type=Path, action="append", required=True, help="folder of an evaluation")
    parser.add_argument("--seeds", type=int, default=3, help="how many of its seeds, for gradients")
    parser.add_argument("--table", choices=["gradients", "sensitivity"], action="append", help="default: both")
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    evaluated = [load(folder, arguments.seeds) for folder in arguments.evaluation]
    made = {"gradients": gradients, "sensitivity": sensitivity}
    tables = {name: list(made[name](evaluated)) for name in arguments.table or made}
    print(json.dumps(tables, indent=1) if arguments.json else "\n\n".join(map(markdown, tables.values())))


def load(folder: Path, seeds: int) -> Evaluated:
    """Load an evaluation's recordings and those of its sources that have an aligned encoder."""
    dataset = load_data(folder, None)
    sources: dict[str, list[PreparedSource]] = {}
    for facts in read_facts(folder):
        if facts.seed < seeds:
            source = load_source(folder, dataset, facts.recipe, facts.seed)
            if "cta" in source.prepared.alignments:
                sources.setdefault(facts.recipe, []).append(source)
    return Evaluated(folder.name.rpartition("-")[2], dataset, sources)


def gradients(evaluated: Sequence[Evaluated]) -> Iterator[dict[str, str]]:
    """Yield a line per recordings and kind of source."""
    for each in evaluated:
        target = each.dataset.target
        assert target is not None  # an evaluation has one
        for recipe, sources in each.sources.items():
            thirds: list[list[float]] = [[], [], []]
            means, gains = [], []
            for source in sources:
                for _, where in target.streams():
                    windows = torch.from_numpy(target.windows[where])
                    labels = torch.from_numpy(target.labels[where])
                    aligned = source.prepared.alignment("cta")
                    cosines, gain = cosines_along(source.context, aligned, windows, labels)
                    for place, cosine in enumerate(cosines):
                        thirds[3 * place // len(cosines)].append(cosine)
                    means.append(fmean(cosines))
                    gains.append(gain)
            everything = [cosine for third in thirds for cosine in third]
            yield {
                "recordings": each.name,
                "source": recipe,
                **{n: f"{fmean(t):+.2f}" for n, t in zip(("first third", "middle", "last"), thirds, strict=True) if t},
                "above zero": f"{fmean(cosine > 0 for cosine in everything):.0%}",
                "correlation with gain": correlation(means, gains),
            }


def correlation(one: Sequence[float], other: Sequence[float]) -> str:
    """Write the correlation of two lists; nothing where one of them does not vary, or there are too few.

    >>> correlation([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]), correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0])
    ('+1.00', '')
    """
    if len(one) < 3 or np.std(one) == 0 or np.std(other) == 0:
        return ""
    return f"{np.corrcoef(one, other)[0, 1]:+.2f}"


def cosines_along(
    context: SourceContext, aligned: Aligned, windows: Tensor, labels: Tensor
) -> tuple[list[float], float]:
    """Return the cosine at each batch of a stream while CTA goes along it, and CTA's change of accuracy, 0 to 1."""
    method, source = Cta(context, aligned), Unadapted(context)
    look = cosine_of(context, aligned, method.adapts)
    state, generator = method.reset(), torch.Generator().manual_seed(context.seed)
    cosines, gained = [], 0
    for at in range(0, len(windows), _BATCH):
        batch, truth = windows[at : at + _BATCH], labels[at : at + _BATCH]
        if len(batch) == _BATCH:
            cosines.append(look(state, batch, truth, generator))
        state, step = method.adapt_batch(state, batch)
        before = source.adapt_batch({}, batch)[1].probabilities
        gained += int((step.probabilities.argmax(dim=1) == truth).sum() - (before.argmax(dim=1) == truth).sum())
    return cosines or [0.0], gained / len(windows)


def cosine_of(
    context: SourceContext, aligned: Aligned, names: Sequence[str]
) -> Callable[[State, Tensor, Tensor, torch.Generator], float]:
    """Return a function from a state, windows and their labels to the cosine of the two gradients."""
    network = Network(context.model)
    views = Views(context.windows.shape[-1], aligned.unsafe)
    task = Task(aligned.settings, SourceUnits(context), views, lambda some: network.forward(some).features)
    moved = [name for name in names if name not in network.statistics]

    def cosine(state: State, windows: Tensor, labels: Tensor, generator: torch.Generator) -> float:
        leaves = {name: state[name].detach().requires_grad_() for name in moved}
        tensors = {**aligned.encoder, **{name: state[name] for name in names}, **leaves}

        def encode(some: Tensor) -> Tensor:
            return network.forward(some, tensors).features

        logits = encode(windows) @ aligned.head["weight"].T + aligned.head["bias"]
        losses = task.loss(encode, aligned.projector, windows, generator), cross_entropy(logits, labels)
        own, theirs = (torch.cat([g.flatten() for g in gradients_of(loss, leaves).values()]) for loss in losses)
        return float(cosine_similarity(own, theirs, dim=0))

    return cosine


def sensitivity(evaluated: Sequence[Evaluated]) -> Iterator[dict[str, str]]:
    """Yield a line per recordings and setting, on the plain source of the first seed."""
    for each in evaluated:
        target = each.dataset.target
        assert target is not None
        source = next(iter(each.sources.values()))[0]
        context = source.context
        labels = torch.from_numpy(each.dataset.source.labels)
        epochs, unsafe = default_epochs(len(labels)), each.dataset.unsafe_augmentations
        cta = source.prepared.alignment("cta")
        methods = [(f"rate {rate:g}", Cta(context, cta, learning_rate=rate), cta) for rate in RATES]
        for name, settings in SETTINGS.items():
            aligned = align(context, labels, settings, epochs, unsafe)
            methods.append((name, Cta(context, aligned), aligned))
        for name, method, aligned in methods:
            line = {"recordings": each.name, "setting": name}
            for order, split in (("ordered", target), ("shuffled", shuffled(target, context.seed))):
                changes = np.array(accuracies(method, split, _BATCH)) - np.array(
                    accuracies(Unadapted(context), split, _BATCH)
                )
                line[order] = points(100 * float(changes.mean()), 100 * float(changes.min()))
            yield {**line, "cosine with the classifier": f"{aligned.matched:.2f}"}


if __name__ == "__main__":
    main()
