"""Fine-tune a source on one group with labels, and look at groups that it never saw and at the source.

Run ``python -m benchmarks.one_group --study DIR --study DIR ...`` with folders of `acclimate continual`, whose sources
and stretches it uses. Each way of learning makes the same number of steps on all labels of the group's stretches;
means over groups and seeds, in points of accuracy against the source. docs/continual.md holds a run.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from acclimate.adaptation.continual.experiment import Domain, accuracy
from acclimate.adaptation.continual.learner import Arrived, Learner
from acclimate.adaptation.continual.settings import LearnerSettings
from acclimate.infra.allocator import keep_freed_memory
from acclimate.streams.lab.continual.options import ContinualOptions
from acclimate.streams.lab.continual.study import load_recordings
from acclimate.streams.lab.study.folder import read_binding
from acclimate.streams.lab.study.prepare import load_source, read_facts

METHODS = ("naive", "l2sp", "tpgm", "spd", "ftp", "ftp-warm", "ftp-relative")


def main() -> None:
    parser = argparse.ArgumentParser(description="Fine-tuning on one group, and what it does to all others.")
    parser.add_argument("--study", type=Path, action="append", required=True, help="folder of acclimate continual")
    parser.add_argument("--data", type=Path, required=True, help="folder of the recordings")
    parser.add_argument("--groups", type=int, default=4, help="groups to fine-tune on, spread evenly")
    parser.add_argument("--steps", type=int, default=300, help="of each fine-tuning")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    lines = [
        line
        for folder in arguments.study
        for line in study_lines(folder, arguments.data, arguments.groups, arguments.steps, arguments.learning_rate)
    ]
    print(json.dumps(lines, indent=1) if arguments.json else markdown(lines))


def study_lines(folder: Path, data: Path, groups: int, steps: int, rate: float) -> Iterator[dict[str, Any]]:
    """Yield a line per kind of source and way of learning."""
    bound = read_binding(folder)
    selection = {n: tuple(v) if isinstance(v, list) else v for n, v in bound["selection"].items()}
    recordings = load_recordings(ContinualOptions({**selection, "data": data / bound["data"]}, ("naive",)))
    facts = read_facts(folder)
    for recipe in dict.fromkeys(each.recipe for each in facts):
        seeds = [each.seed for each in facts if each.recipe == recipe]
        found: dict[str, list[tuple[float, float, float]]] = {method: [] for method in METHODS}
        for seed in seeds:
            context = load_source(folder, recordings.dataset, recipe, seed).context
            source = Arrived(context.windows, context.labels, torch.zeros_like(context.labels))
            for method in METHODS:
                settings = LearnerSettings(method, rate, steps=steps, recent=10**6)
                learner = Learner(context.model, source, recordings.dataset.classes, settings, seed)
                found[method] += changes(learner, recordings.domains, recordings.source, groups)
        for method, values in found.items():
            own, unseen, at_source = (100 * fmean(each) for each in zip(*values, strict=True))
            yield {
                "recordings": recordings.dataset.name,
                "source": recipe,
                "method": method,
                "seeds": len(seeds),
                "the group": f"{own:+.1f}",
                "groups never seen": f"{unseen:+.1f}",
                "source's own": f"{at_source:+.1f}",
            }


def changes(
    learner: Learner, domains: Sequence[Domain], source: Domain, groups: int
) -> Iterator[tuple[float, float, float]]:
    """Yield what fine-tuning on a group changes on it, on the other groups, and on the source; 0 to 1."""

    def judged(state: Any) -> list[float]:
        model = learner.model(state)
        return [accuracy(model, each.judged_windows, each.judged_labels) for each in (*domains, source)]

    start = learner.start()
    before = np.array(judged(start))
    for place in np.unique(np.linspace(0, len(domains) - 1, groups).round().astype(int)).tolist():
        domain = domains[place]
        arrived = Arrived(domain.windows, domain.labels, torch.ones_like(domain.labels))
        state, _ = learner.learn(start, arrived, finish=True)
        change = np.array(judged(state)) - before
        yield float(change[place]), float(np.delete(change[:-1], place).mean()), float(change[-1])


def markdown(lines: Sequence[dict[str, Any]]) -> str:
    """Return the table."""
    head = list(lines[0])
    rows = ["| " + " | ".join(str(line[name]) for name in head) + " |" for line in lines]
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *rows])


if __name__ == "__main__":
    main()
