"""The memory of supports, worked by hand and against a plain list that is sorted anew each time."""

import numpy as np
import pytest
import torch
from torch import Tensor

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.methods.prototypes import admit, prototype_logits, start_supports, templates


def logits_for(entropies: list[float], labels: list[int]) -> Tensor:
    """Return logits of three classes whose argmax is the label and whose entropy grows with the number given."""
    rows = torch.zeros(len(labels), 3)
    rows[torch.arange(len(labels)), torch.tensor(labels)] = 10.0 - torch.tensor(entropies)
    return rows


def directions(angles: list[float]) -> Tensor:
    """Return features of length 3 at these angles in degrees."""
    radians = torch.deg2rad(torch.tensor(angles))
    return 3 * torch.stack([radians.cos(), radians.sin()], dim=1)


def angles_of(memory: dict[str, Tensor], label: int) -> list[float]:
    """Return the angles held for a class, in degrees."""
    held = memory["supports"][label][torch.isfinite(memory["entropies"][label])]
    return [round(float(angle), 2) for angle in torch.rad2deg(torch.atan2(held[:, 1], held[:, 0]))]


def empty(per_class: int) -> dict[str, Tensor]:
    return {"supports": torch.zeros(3, per_class, 2), "entropies": torch.full((3, per_class), torch.inf)}


def test_the_surest_stay_sorted_and_each_class_has_its_own_room() -> None:
    offered = directions([10.0, 20.0, 30.0, 40.0, 50.0])
    memory, entered = admit(empty(2), offered, logits_for([3.0, 1.0, 2.0, 5.0, 0.0], [0, 0, 0, 1, 0]))
    assert angles_of(dict(memory), 0) == [50.0, 20.0]
    assert angles_of(dict(memory), 1) == [40.0]
    assert angles_of(dict(memory), 2) == []
    assert entered == 3


def test_the_older_of_two_equally_sure_stays_and_then_the_memory_is_the_same_object() -> None:
    memory, _ = admit(empty(1), directions([10.0]), logits_for([1.0], [0]))
    after, entered = admit(memory, directions([20.0]), logits_for([1.0], [0]))
    assert after is memory
    assert entered == 0


def test_a_surer_newcomer_changes_the_memory_without_writing_into_the_old_one() -> None:
    memory, _ = admit(empty(1), directions([10.0]), logits_for([1.0], [0]))
    after, _ = admit(memory, directions([20.0]), logits_for([0.0], [0]))
    assert angles_of(dict(memory), 0) == [10.0]
    assert angles_of(dict(after), 0) == [20.0]


def test_an_answer_that_is_not_a_number_never_enters() -> None:
    memory = empty(1)
    assert admit(memory, directions([10.0]), torch.full((1, 3), torch.nan)) == (memory, 0)


@pytest.mark.parametrize("cuts", [[40], [1] * 40, [7, 13, 20]])
def test_any_batches_leave_what_sorting_everything_ever_offered_leaves(cuts: list[int]) -> None:
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(40, 5, generator=generator)
    logits = 2 * torch.randn(40, 3, generator=generator)
    memory = {"supports": torch.zeros(3, 4, 5), "entropies": torch.full((3, 4), torch.inf)}
    for part in torch.split(torch.arange(40), cuts):
        memory = dict(admit(memory, features[part], logits[part])[0])
    p = np.exp(logits.double().numpy())
    p /= p.sum(axis=1, keepdims=True)
    entropy = -(p * np.log(p)).sum(axis=1)
    for label in range(3):
        best = sorted(np.flatnonzero(p.argmax(axis=1) == label), key=lambda place: entropy[place])[:4]
        unit = features.numpy()[best] / np.linalg.norm(features.numpy()[best], axis=1, keepdims=True)
        np.testing.assert_allclose(memory["supports"][label][: len(best)], unit, atol=1e-6)
        assert not memory["supports"][label][len(best) :].any()


def test_templates_are_mean_directions_and_a_class_without_supports_scores_zero() -> None:
    memory, _ = admit(empty(3), directions([0.0, 90.0, 180.0]), logits_for([0.0, 0.0, 0.0], [0, 0, 1]))
    found = prototype_logits(memory, torch.tensor([[2.0, 0.0]]))
    assert found[0].tolist() == pytest.approx([2 * 0.5**0.5, -2.0, 0.0], abs=1e-6)
    np.testing.assert_allclose(templates(memory), [[0.5**0.5, 0.5**0.5], [-1.0, 0.0], [0.0, 0.0]], atol=1e-6)


def test_the_memory_starts_with_the_rows_of_the_head_under_the_class_that_the_head_gives_them() -> None:
    weight = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]])  # the head takes its own row 0 for class 1
    memory = start_supports(weight, None, per_class=2)
    assert angles_of(memory, 0) == []
    assert angles_of(memory, 1) == [0.0, 0.0]
    assert angles_of(memory, 2) == [90.0]
    with pytest.raises(ConfigError, match="per_class"):
        start_supports(weight, None, per_class=0)
