"""The source model as a method is the source model."""

import numpy as np
import pytest
import torch

from acclimate.adaptation.methods.source import Unadapted
from acclimate.adaptation.model.spec import NetworkSpec
from tests.adaptation.methods.numpy_net import run, shifted, softmax, source_for
from tests.adaptation.tiny_nets import SPECS, settled


@pytest.mark.parametrize("spec", SPECS)
def test_answers_are_the_model_s_own_and_nothing_is_kept(spec: NetworkSpec) -> None:
    method = Unadapted(source_for(spec))
    windows = shifted(spec, 9)
    state, step = method.adapt_batch(method.reset(), windows)
    model = settled(spec)[0]
    assert torch.equal(step.probabilities, torch.softmax(model(windows), dim=1))
    np.testing.assert_allclose(step.probabilities, softmax(run(model, windows)[0]), atol=1e-5)
    assert state == {}
    assert (step.updates, step.resets, step.selected) == (0, 0, 0)
