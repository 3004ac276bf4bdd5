"""How GeneralizeFormer is taught: every weight of it, by right answers."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from acclimate.adaptation.generators.affine_gradient import look
from acclimate.adaptation.generators.generalizeformer import GeneralizeFormerSettings
from acclimate.adaptation.generators.generator import Generator
from acclimate.adaptation.generators.meta_task import ALONE, MetaState, MetaTask
from acclimate.adaptation.generators.meta_train import start_state
from acclimate.adaptation.generators.meta_train_generalizeformer import GeneralizeFormerTraining
from acclimate.adaptation.generators.valid_range import ValidRange
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


def test_nothing_is_held_back_before_any_update_and_as_much_as_possible_when_weights_are_wild() -> None:
    task = MetaTask(trained_on_tones()[0], recordings(), 0, "cpu", ALONE)
    training = GeneralizeFormerTraining(task, GeneralizeFormerSettings())
    before = start_state(training, 0)
    share, cost = training.finished(before, 7)
    assert share == 1.0
    assert (cost.update, cost.accuracy) == (7, cost.source_accuracy)
    drawn = torch.Generator().manual_seed(0)
    wild = {
        name: value + torch.randn(value.shape, generator=drawn) if name.startswith("best/") else value
        for name, value in before.items()
    }
    share, least = training.finished(wild, 7)
    assert share == 0.2
    assert least.accuracy < cost.accuracy - 0.005


def test_a_share_of_the_changes_is_what_a_generator_of_that_share_makes() -> None:
    task = MetaTask(trained_on_tones()[0], recordings(), 0, "cpu", ALONE)
    training = GeneralizeFormerTraining(task, GeneralizeFormerSettings())
    with torch.no_grad():
        training.former.head.weight.normal_(0.0, 0.2, generator=torch.Generator().manual_seed(0))
    windows = task.judged.windows[:2, :64]
    weights = {name: value.clone() for name, value in training.former.state_dict().items()}
    found = training._answered(windows, 0.6)
    generator = Generator(training.settings, weights, ValidRange(1.0, 1.0), step_share=0.6)
    training.former = generator.generalizeformer()
    torch.testing.assert_close(found, training._answered(windows, 1.0), atol=1e-5, rtol=0)
    training.former = replace(generator, step_share=1.0).generalizeformer()
    assert (found - training._answered(windows, 1.0)).abs().max() > 0.01
