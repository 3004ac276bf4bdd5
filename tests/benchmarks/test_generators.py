"""The tables about generators, and the curve over batches: what is paired with what."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from acclimate.adaptation.data.dataset import Dataset, Split
from acclimate.adaptation.methods.prepared import Prepared
from acclimate.adaptation.model.spec import NetworkSpec
from acclimate.streams.lab.evaluate.task_runner import _pack
from acclimate.streams.lab.study.prepare import PreparedSource
from benchmarks.adaptation_batches import curves, draw, panels
from benchmarks.generators import Evaluated, compression, markdown, points, shuffled, spread, transfer, unshifted
from tests.adaptation.methods.numpy_net import source_for
from tests.adaptation.tiny_generators import drawn_generators
from tests.adaptation.tiny_nets import CONV, MLP, windows_for


def evaluated(spec: NetworkSpec, name: str, size: float = 0.0) -> Evaluated:
    """Return two devices of 40 windows, with generators that were not taught, or with noise of a size."""
    generators = drawn_generators(spec, size)
    if size == 0.0:
        still = {key: value * 0 for key, value in generators["generalizeformer"].weights.items()}
        generators = {**generators, "generalizeformer": replace(generators["generalizeformer"], weights=still)}
    source = PreparedSource(source_for(spec), {}, prepared=Prepared(generators=generators))
    split = Split(windows_for(spec, 80), np.arange(80) % spec.classes, np.repeat(["a", "b"], 40), np.arange(80))
    names = tuple(str(i) for i in range(spec.channels))
    classes = tuple(str(i) for i in range(spec.classes))
    dataset = Dataset(name, split, split, names, classes, spec.transform, "device", None, {})
    return Evaluated(name, dataset, {"none": [source, source]})


def test_a_generator_that_does_nothing_loses_nothing_on_unshifted_data() -> None:
    rows = [row for row in unshifted([evaluated(CONV, "tiny")]) if row["method"] == "generalizeformer"]
    assert [set(row.values()) for row in rows] == [{"tiny", "none", "generalizeformer", "+0.0 (+0.0)"}]
    assert [key for key in rows[0] if key.startswith("ordered")] == ["ordered, 1", "ordered, 8", "ordered, 64"]


def test_fewer_bits_are_compared_on_targets_and_every_mgg_is_lent_to_every_network() -> None:
    both = [evaluated(CONV, "conv", 0.3), evaluated(MLP, "mlp", 0.3)]
    small = list(compression(both))
    assert [row["weights"] for row in small] == ["fp32", "fp16", "int8"] * 4
    lent = list(transfer(both))
    assert [(row["used on"].split()[0], row["method"], row["taught on"]) for row in lent] == [
        (used, *how)
        for used in ("conv", "mlp")
        for how in (("mgg", "conv"), ("mgg", "mlp"), ("same-loss-sgd", ""), ("same-loss-adam", ""))
    ]
    assert markdown(lent).count("\n") == 9


def test_a_shuffled_split_keeps_every_window_with_its_label_and_group() -> None:
    split = evaluated(CONV, "tiny").dataset.source
    other = shuffled(split, 3)
    assert not (other.rows == split.rows).all()
    assert (other.groups == split.groups).all()
    order = np.argsort(other.rows)
    assert (other.windows[order] == split.windows).all()
    assert (other.labels[order] == split.labels).all()
    assert len(spread(split)) == 80
    assert points(-0.04, 0.0) == "-0.0 (+0.0)"


def test_a_curve_is_the_mean_over_groups_of_the_k_th_batch(tmp_path: Path) -> None:
    lines = []
    for method in ("source", "mgg", "same-loss-sgd"):
        for seed in (0, 1):
            for stream in ("ordered", "shuffled"):
                for group, count in (("a", 128), ("b", 128), ("c", 64)):
                    right = np.zeros(count, dtype=np.bool_)
                    right[: 32 if group == "a" else 64] = True
                    task = {"source": "none", "seed": seed, "stream": stream, "batch_size": 64, "method": method}
                    entry = {
                        "group": group,
                        "n": count,
                        "right": _pack(right),
                        "recorded": "",
                        "data": "",
                        "label_run": 1,
                    }
                    lines.append(json.dumps({"task": {**task, "group": group}, "groups": [entry]}))
    (tmp_path / "finished.jsonl").write_text("\n".join(lines) + "\n")
    found = curves(tmp_path, "mgg", "ordered", "none")
    assert found == pytest.approx(np.array([[2.5 / 3, 0.0]] * 2))
    assert panels([tmp_path]) == [(tmp_path, "none")]
    draw([tmp_path], "mgg", tmp_path / "curve.svg")
    assert "batch of 64 windows" in (tmp_path / "curve.svg").read_text()


def test_stretches_are_of_one_batch_each_and_reach_from_the_first_window_of_a_device_to_its_last() -> None:
    windows = np.zeros((1300, 1, 1), dtype=np.float32)
    groups = np.repeat(["a", "b"], [1000, 300])
    kept = spread(Split(windows, np.zeros(1300, np.int64), groups, np.arange(1300)))
    first, second = kept.rows[kept.groups == "a"].reshape(10, 64), kept.rows[kept.groups == "b"]
    assert (np.diff(first, axis=1) == 1).all()
    assert (first[0, 0], first[-1, -1]) == (0, 999)
    assert (np.diff(first[:, 0]) >= 64).all()
    assert second.tolist() == list(range(1000, 1300))
