"""Generators of an evaluation: meta-trained once per seed, recipe and variant, on the source alone, and kept.

sources/seed-0-none.mgg.generator     settings, figures and the weights, as safetensors with a header of JSON
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from adaptation.data.dataset import Dataset
from adaptation.errors import ContractError
from adaptation.generators.episodes import Recordings
from adaptation.generators.generator import VARIANTS, Generator
from adaptation.generators.meta_train import meta_train
from adaptation.generators.valid_range import ValidRange
from adaptation.method import SourceContext
from streams.lab.making.facts_file import read_facts_file, write_facts_file
from streams.lab.study.code_state import GENERATOR_MAKERS, code_digest
from streams.lab.study.kept import kept_path, read_all_facts

__all__ = ["generator_path", "prepare_generator", "read_generator_facts", "read_generators"]


def prepare_generator(
    folder: Path, dataset: Dataset, context: SourceContext, recipe: str, name: str, clock: Callable[[], float]
) -> None:
    """Meta-train one variant for a source model and keep it; minutes.

    Args:
        folder: Of the evaluation.
        dataset: Its source is what is learned from.
        context: Of the source model, which gives the seed.
        recipe: That the source model was trained with.
        name: One of `adaptation.generators.generator.VARIANTS`.
        clock: Gives seconds.

    Raises:
        DataError: The source is too small, or training leads to numbers that are not finite.
    """
    started, source = clock(), dataset.source
    recordings = Recordings(source.windows, source.labels, source.groups)
    trained = meta_train(context.model, recordings, VARIANTS[name], context.seed)
    facts = {
        "name": name,
        "seed": context.seed,
        "recipe": recipe,
        "settings": asdict(trained.generator.settings),
        "valid_range": asdict(trained.generator.valid_range),
        "step_share": trained.generator.step_share,
        "updates": trained.updates,
        "best": asdict(trained.best),
        "helps": trained.helps,
        "seconds": round(clock() - started, 1),
        "code": code_digest(GENERATOR_MAKERS),
    }
    write_facts_file(generator_path(folder, recipe, context.seed, name), trained.generator.weights, facts)


def generator_path(folder: Path, recipe: str, seed: int, name: str) -> Path:
    """Return where a generator is kept."""
    return kept_path(folder, recipe, seed, name, "generator")


def read_generators(folder: Path, recipe: str, seed: int) -> dict[str, Generator]:
    """Return all generators that are kept for a source model, by name.

    Raises:
        ContractError: One is damaged, or from another state of the code.
    """
    found = {}
    for name in VARIANTS:
        path = generator_path(folder, recipe, seed, name)
        if path.exists():
            facts, weights = read_facts_file(path)
            if facts["settings"] != asdict(VARIANTS[name]) or "step_share" not in facts:
                raise ContractError(f"{path} has other settings than this code; --again {name} makes it anew")
            found[name] = Generator(VARIANTS[name], weights, ValidRange(**facts["valid_range"]), facts["step_share"])
    return found


def read_generator_facts(folder: Path) -> list[dict[str, Any]]:
    """Return the facts of all generators that are kept, by name, recipe and seed."""
    return read_all_facts(folder, "generator", VARIANTS)
