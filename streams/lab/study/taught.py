"""Aligned encoders of an evaluation: taught once per seed, recipe and variant, on the source alone, and kept.

sources/seed-0-none.cta.alignment     settings, figures and the weights, as safetensors with a header of JSON
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from adaptation.alignment.align import align
from adaptation.alignment.aligned import VARIANTS, Aligned, as_tensors, parts_of
from adaptation.data.dataset import Dataset
from adaptation.errors import ContractError
from adaptation.method import SourceContext
from adaptation.model.train import default_epochs
from streams.lab.making.facts_file import read_facts_file, write_facts_file
from streams.lab.study.code_state import ALIGNMENT_MAKERS, code_digest
from streams.lab.study.kept import kept_path, read_all_facts

__all__ = ["alignment_path", "prepare_alignment", "read_alignment_facts", "read_alignments"]


def prepare_alignment(
    folder: Path, dataset: Dataset, context: SourceContext, recipe: str, name: str, clock: Callable[[], float]
) -> None:
    """Align one variant with a source model and keep it; minutes.

    Args:
        folder: Of the evaluation.
        dataset: Its source is what is learned from.
        context: Of the source model, which gives the seed.
        recipe: That the source model was trained with.
        name: One of `adaptation.alignment.aligned.VARIANTS`.
        clock: Gives seconds.

    Raises:
        DataError: Training leads to numbers that are not finite.
    """
    started, source = clock(), dataset.source
    labels = torch.from_numpy(source.labels)
    aligned = align(context, labels, VARIANTS[name], default_epochs(len(source)), dataset.unsafe_augmentations)
    facts = {
        "name": name,
        "seed": context.seed,
        "recipe": recipe,
        "settings": asdict(aligned.settings),
        "unsafe": list(aligned.unsafe),
        "ssl_mean": aligned.ssl_mean,
        "ssl_std": aligned.ssl_std,
        "matched": aligned.matched,
        "mismatched": aligned.mismatched,
        "seconds": round(clock() - started, 1),
        "code": code_digest(ALIGNMENT_MAKERS),
    }
    write_facts_file(alignment_path(folder, recipe, context.seed, name), as_tensors(aligned), facts)


def alignment_path(folder: Path, recipe: str, seed: int, name: str) -> Path:
    """Return where an aligned encoder is kept."""
    return kept_path(folder, recipe, seed, name, "alignment")


def read_alignments(folder: Path, recipe: str, seed: int) -> dict[str, Aligned]:
    """Return all aligned encoders that are kept for a source model, by name.

    Raises:
        ContractError: One is damaged, or from another state of the code.
    """
    found = {}
    for name, settings in VARIANTS.items():
        path = alignment_path(folder, recipe, seed, name)
        if path.exists():
            facts, tensors = read_facts_file(path)
            if facts["settings"] != asdict(settings):
                raise ContractError(f"{path} has other settings than this code; --again {name} makes it anew")
            encoder, head, projector = parts_of(tensors)
            figures = (facts["ssl_mean"], facts["ssl_std"], facts["matched"], facts["mismatched"])
            found[name] = Aligned(settings, encoder, head, projector, tuple(facts["unsafe"]), *figures)
    return found


def read_alignment_facts(folder: Path) -> list[dict[str, Any]]:
    """Return the facts of all aligned encoders that are kept, by name, recipe and seed."""
    return read_all_facts(folder, "alignment", VARIANTS)
