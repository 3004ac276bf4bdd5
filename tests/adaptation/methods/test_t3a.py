"""T3A: steps on tiny nets against float64 lists, and one worked by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from acclimate.adaptation.method import SourceContext
from acclimate.adaptation.methods.t3a import T3a
from acclimate.adaptation.model.nets import to_tensors
from acclimate.adaptation.model.spec import NetworkSpec
from tests.adaptation.methods.numpy_net import Array, entropy, run, shifted, softmax, source_for
from tests.adaptation.tiny_nets import CONV, SPECS, settled


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("cuts", [[30], [1] * 30, [1, 22, 7]])
def test_every_step_equals_a_float64_reference(spec: NetworkSpec, cuts: list[int]) -> None:
    model, method = settled(spec)[0], T3a(source_for(spec), per_class=3)
    tensors = {name: value.astype(np.float64) for name, value in to_tensors(model).items()}
    rows = tensors["head.weight"]
    held: list[tuple[int, float, Array]] = []  # class, entropy, unit feature

    def hold(logits: Array, features: Array) -> None:
        p = softmax(logits)
        units = features / np.linalg.norm(features, axis=1, keepdims=True)
        held.extend(zip(p.argmax(axis=1).tolist(), entropy(p).tolist(), units, strict=True))

    hold(rows @ rows.T + tensors["head.bias"], rows)
    state = method.reset()
    for part in torch.split(shifted(spec, 30), cuts):
        state, step = method.adapt_batch(state, part)
        logits, features = run(model, part)
        hold(logits, features)
        templates = np.zeros((spec.classes, spec.features))
        for label in range(spec.classes):
            best = sorted((one for one in held if one[0] == label), key=lambda one: one[1])[:3]
            if best:
                total = np.sum([unit for _, _, unit in best], axis=0)
                templates[label] = total / np.linalg.norm(total)
        np.testing.assert_allclose(step.probabilities, softmax(features @ templates.T), atol=1e-5)


def test_a_step_worked_by_hand() -> None:
    # Features pass unchanged: mean 0, variance 1, eps 0. The head's rows are the axes, without bias.
    model = nn.Sequential(nn.BatchNorm1d(2, eps=0.0, affine=False), nn.Linear(2, 2, bias=False)).eval()
    model[1].weight.data = torch.eye(2)
    method = T3a(SourceContext(model, torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64)), per_class=1)
    # (4, 3) is taken for class 0 with margin 1, as sure as the axis itself, which is older and stays.
    state, step = method.adapt_batch(method.reset(), torch.tensor([[4.0, 3.0]]))
    assert step.updates == 0
    assert step.probabilities[0, 0].item() == pytest.approx(1 / (1 + math.exp(-1)))
    # (8, 6) has margin 2 and replaces it: t_0 = (0.8, 0.6), t_1 = (0, 1), logits 10 and 6.
    state, step = method.adapt_batch(state, torch.tensor([[8.0, 6.0]]))
    assert (step.updates, step.selected) == (1, 1)
    assert state["supports"][:, 0].flatten().tolist() == pytest.approx([0.8, 0.6, 0.0, 1.0])
    assert step.probabilities[0, 0].item() == pytest.approx(1 / (1 + math.exp(-4)))


def test_memory_does_not_grow() -> None:
    method = T3a(source_for(CONV))
    state = method.reset()
    for part in torch.split(shifted(CONV, 200), 20):
        state, _ = method.adapt_batch(state, part)
    assert {name: value.shape for name, value in state.items()} == {
        name: value.shape for name, value in method.reset().items()
    }
    assert state["supports"].shape == (4, 20, 7)
