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


def test_what_it_costs_the_unshifted_source_is_nothing_before_any_update_and_is_seen_when_weights_are_wild() -> None:
    task = MetaTask(trained_on_tones()[0], recordings(), 0, "cpu", ALONE)
    training = GeneralizeFormerTraining(task, GeneralizeFormerSettings())
    before = start_state(training, 0)
    alpha, cost = training.finished(before, 7)
    assert alpha is None
    assert (cost.update, cost.accuracy) == (7, cost.source_accuracy)
    windows, labels = task.unshifted()
    with torch.no_grad():
        right = trained_on_tones()[0](windows.flatten(0, 1)).argmax(dim=1) == labels.flatten()
    assert cost.source_accuracy == pytest.approx(float(right.float().mean()))
    drawn = torch.Generator().manual_seed(0)
    wild = {
        name: value + torch.randn(value.shape, generator=drawn) if name.startswith("best/") else value
        for name, value in before.items()
    }
    assert training.finished(wild, 7)[1].accuracy < cost.accuracy - 0.2
