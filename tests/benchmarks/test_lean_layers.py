"""The study of LeanTTA's layers: what is compared, and how changes become figures."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from acclimate.adaptation.data.dataset import Split
from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.methods.leantta import Leantta, LeanttaHybrid
from benchmarks.lean_layers import MOMENTA, PERIODS, Variant, load_data, make, markdown, study, summarise, variants
from tests.adaptation.methods.numpy_net import source_for
from tests.adaptation.tiny_nets import CONV, MLP, settled, windows_for


def split_of(count: int) -> Split:
    windows = windows_for(CONV, count)
    labels = np.arange(count) % CONV.classes
    groups = np.repeat(["a", "b"], count // 2)
    return Split(windows, labels, groups, np.arange(count), 0)


def test_every_choice_of_layers_is_there_in_both_directions_and_every_period_with_every_momentum() -> None:
    found = variants(4)
    assert [v.flags for v in found if v.method == "leantta-a"] == [
        *(tuple(index == layer for index in range(4)) for layer in range(4)),
        (True, True, False, False),
        (False, False, True, True),
        (True, True, True, True),
    ]
    assert [v.flags for v in found if v.method == "leantta"] == [v.flags for v in found if v.method == "leantta-a"]
    hybrids = [(v.period, v.momentum) for v in found if v.method == "leantta-hybrid"]
    assert hybrids == [(period, momentum) for period in PERIODS for momentum in MOMENTA]


def test_variants_are_configured_with_their_layers() -> None:
    last = make(Variant("leantta-a", "2 alone", (False, True)), source_for(CONV))
    assert isinstance(last, Leantta)
    assert last.adapts == ("blocks.1.norm.running_mean", "blocks.1.norm.running_var")
    hybrid = make(Variant("leantta-hybrid", "default", (True, False), 32, 0.5), source_for(CONV))
    assert isinstance(hybrid, LeanttaHybrid)


def test_changes_are_paired_by_group_and_a_loss_of_half_a_point_is_no_harm_yet() -> None:
    row = summarise("none", variants(1)[0], np.array([[10.0, -0.5, -0.6], [12.0, -4.0, 1.0]]))
    assert row.gain_by_seed == pytest.approx((8.9 / 3, 3.0))
    assert row.gain == pytest.approx((8.9 / 3 + 3.0) / 2)
    assert row.worst == pytest.approx((-0.6 - 4.0) / 2)
    assert row.harmed == pytest.approx(2 / 6)


def test_a_study_runs_every_variant_and_its_table_has_columns_for_every_kind_of_source() -> None:
    target = split_of(80)
    rows = study("none", [source_for(CONV)], target)
    assert [row.variant for row in rows] == variants(2)
    model, lean = settled(CONV)[0], make(rows[0].variant, source_for(CONV))
    windows = torch.from_numpy(target.windows)  # no method here keeps anything, so both groups can be one batch
    by_lean = lean.adapt_batch({}, windows)[1].probabilities.argmax(dim=1).numpy() == target.labels
    by_source = model(windows).argmax(dim=1).numpy() == target.labels
    changes = 100 * (by_lean.reshape(2, 40).mean(axis=1) - by_source.reshape(2, 40).mean(axis=1))
    assert (rows[0].gain, rows[0].worst) == pytest.approx((changes.mean(), changes.min()))
    text = markdown([*rows, *(summarise("noise:1", row.variant, np.array([[2.0], [4.0]])) for row in rows)])
    assert "none: gain by seed | none: worst group | none: harmed | noise:1: gain by seed |" in text
    assert text.count("| **+3.0** of +2.0 +4.0 | +3.0 | 0 % |") == len(rows)


def test_on_rows_without_time_only_the_hybrid_is_left() -> None:
    windows = windows_for(MLP, 40)
    rows = study(
        "none",
        [source_for(MLP)],
        Split(windows, np.zeros(40, dtype=np.int64), np.repeat(["a"], 40), np.arange(40), 0),
    )
    assert {row.variant.method for row in rows} == {"leantta-hybrid"}


def test_recordings_other_than_those_of_the_evaluation_are_refused(tmp_path: Path) -> None:
    selection = {"label": "y", "source": ["device=1"], "target": ["device=2"]}
    bound = {"data": "one.npz", "data_sha256": "0" * 64, "selection": selection, "stride": 1}
    (tmp_path / "binding.json").write_text(json.dumps(bound))
    other = tmp_path / "other.npz"
    other.write_bytes(b"")
    with pytest.raises(ConfigError, match=r"another one\.npz"):
        load_data(tmp_path, other)
