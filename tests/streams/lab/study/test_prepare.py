"""What an evaluation prepares: what methods may know of the source."""

import json
from pathlib import Path

import numpy as np
import torch

from acclimate.adaptation.data.dataset import Dataset, Split
from acclimate.adaptation.generators.affine_gradient import source_features
from acclimate.adaptation.generators.episodes import Recordings
from acclimate.adaptation.generators.meta_task import ALONE, MetaTask
from acclimate.adaptation.model.network import Network
from acclimate.streams.lab.study.prepare import SourceFacts, load_source, prepare_source, read_facts, save_source
from tests.adaptation.tiny_nets import tones


def lopsided() -> Dataset:
    """Return two devices that send one class nine times as often as the other."""
    windows, labels = tones(3000, seed=2)
    rows = np.concatenate([np.flatnonzero(labels == kind)[:count] for kind, count in ((0, 900), (1, 100))])
    groups = np.where(np.arange(1000) % 2 == 0, "a", "b")
    split = Split(windows[rows], labels[rows], groups, np.arange(1000))
    return Dataset("tiny", split, split, ("x", "y"), ("0", "1"), "none", "device", None, {})


def test_methods_compare_features_to_the_very_windows_that_generators_are_taught_to_compare_them_to(
    tmp_path: Path,
) -> None:
    dataset = lopsided()
    save_source(tmp_path, prepare_source(dataset, "none", 0, epochs=1))
    context = load_source(tmp_path, dataset, "none", 0).context
    source = dataset.source
    task = MetaTask(context.model, Recordings(source.windows, source.labels, source.groups), 0, "cpu", ALONE)
    shown = source_features(Network(context.model), context.all_windows)
    assert all(torch.equal(value, getattr(task.source, name)) for name, value in vars(shown).items())
    balanced = source_features(Network(context.model), context.windows)
    assert not torch.allclose(balanced.mean, shown.mean, atol=1e-3)


def test_facts_that_an_earlier_version_kept_are_still_read(tmp_path: Path) -> None:
    folder = tmp_path / "sources"
    folder.mkdir()
    older = {"seed": 1, "recipe": "gain,noise:1", "windows": 9, "epochs": 2, "loss": 0.5, "held_out_by": "groups"}
    (folder / "seed-1-gain-noise-1.json").write_text(json.dumps({"facts": older}))
    newer = {"seed": 0, "recipe": "none", "windows": 9, "epochs": 2, "loss": 0.25, "code": "0123456789ab"}
    (folder / "seed-0-none.json").write_text(json.dumps({"facts": newer}))
    assert read_facts(tmp_path) == [
        SourceFacts(0, "none", 9, 2, 0.25, "0123456789ab"),
        SourceFacts(1, "gain+noise:1", 9, 2, 0.5, None),
    ]
