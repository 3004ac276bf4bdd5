"""Generators behind the policy's gate: whose answers count where."""

import numpy as np
import pytest
import torch

from acclimate.adaptation.methods.policy_settings import PolicySettings
from acclimate.adaptation.methods.prepared import Prepared
from acclimate.streams.lab.study.prepare import PreparedSource
from benchmarks import generator_gate as module
from benchmarks.generator_gate import compared
from tests.adaptation.methods.numpy_net import source_for
from tests.adaptation.tiny_generators import drawn_generators
from tests.adaptation.tiny_nets import CONV, windows_for


@pytest.mark.parametrize(("limit", "open_from"), [(1e9, None), (1e-9, 8)])
def test_generators_answer_only_where_the_gate_is_open(
    limit: float, open_from: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = PreparedSource(source_for(CONV), {}, prepared=Prepared(generators=drawn_generators(CONV, 0.05)))
    windows = windows_for(CONV, 128, seed=9)
    with torch.no_grad():
        source = prepared.context.model(torch.from_numpy(windows)).argmax(dim=1).numpy()
    # A method that is wrong everywhere, to count where it was asked; labels are the source's answers.
    wrong = (source + 1) % CONV.classes
    monkeypatch.setattr(module, "_answers", lambda _, name, __: source if name == "source" else wrong)
    settings = PolicySettings("statistics", True, limit, limit, 256.0, weak=False)
    through, accuracy, _, *by_generators = compared(prepared, settings, windows, source)
    share = 0.0 if open_from is None else (128 - open_from) / 128
    assert through == pytest.approx(share)
    assert accuracy == 1.0
    assert by_generators == pytest.approx([-share, -share])
    assert np.isfinite(windows).all()
