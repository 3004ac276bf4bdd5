"""How GeneralizeFormer is taught: every weight of it, by right answers."""

import pytest
import torch
from torch import nn

from adaptation.generators.affine_gradient import look
from adaptation.generators.generalizeformer import GeneralizeFormerSettings
from adaptation.generators.meta_task import ALONE, MetaState, MetaTask
from adaptation.generators.meta_train import start_state
from adaptation.generators.meta_train_generalizeformer import GeneralizeFormerTraining
from tests.adaptation.tiny_generators import recordings
from tests.adaptation.tiny_nets import trained_on_tones


@pytest.mark.parametrize("classifier", [False, True])
def test_cross_entropy_reaches_every_weight_of_the_transformer_from_the_second_update_on(classifier: bool) -> None:
    settings = GeneralizeFormerSettings(classifier=classifier)
    task = MetaTask(trained_on_tones()[0], recordings(), 0, "cpu", ALONE)
    training = GeneralizeFormerTraining(task, settings)
    state: MetaState = start_state(training, 0)
    state, _ = training.advance(state, 0, 0.5)  # past the first third: no imitation, cross-entropy alone
    moved = {
        name for name, value in training.former.named_parameters() if not torch.equal(value, training.weights[name])
    }
    assert {"head.weight", "head.bias"} <= moved
    before = {name: value.clone() for name, value in training.former.named_parameters()}
    windows, labels = task.drawn(1, 2, 32)
    p_new, _, _ = training._generated(windows[:, :16].flatten(0, 1), 2)
    logits = look(task.network, windows[:, 16:].flatten(0, 1), p_new, 2).logits
    loss = nn.functional.cross_entropy(logits, labels[:, 16:].flatten())
    gradients = torch.autograd.grad(loss, list(training.former.parameters()), allow_unused=True)
    without = [name for name, g in zip(before, gradients, strict=True) if g is None or not g.abs().max() > 0]
    assert without == []
