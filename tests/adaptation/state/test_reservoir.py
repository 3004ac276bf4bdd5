"""The reservoir: balanced over predicted classes, even over time within a class, repeatable."""

from collections import Counter

import pytest
import torch

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.state.reservoir import offer, start_reservoir

SHAPE = torch.Size([1, 1])


def fed(labels: list[int], capacity: int = 8, seed: int = 0, batch: int = 1) -> dict[str, torch.Tensor]:
    """Return a reservoir after windows that hold their own number."""
    memory = start_reservoir(capacity, SHAPE, 3, seed)
    numbers = torch.arange(len(labels), dtype=torch.float32).reshape(-1, 1, 1)
    for windows, part in zip(torch.split(numbers, batch), torch.split(torch.tensor(labels), batch), strict=True):
        memory = offer(memory, windows, part)
    return memory


def test_windows_enter_in_order_while_there_is_room() -> None:
    memory = fed([2, 2, 0, 1], capacity=5)
    assert memory["memory/windows"].flatten().tolist() == [0, 1, 2, 3, 0]
    assert memory["memory/labels"].tolist() == [2, 2, 0, 1, -1]
    assert memory["memory/seen"].tolist() == [1, 1, 2]


def test_a_class_that_lasts_gives_way_to_a_new_one_until_both_have_their_part() -> None:
    memory = fed([0] * 100 + [1] * 100 + [2] * 2, capacity=8)
    assert Counter(memory["memory/labels"].tolist()) == {0: 3, 1: 3, 2: 2}


def test_every_window_of_a_class_is_held_with_the_same_probability() -> None:
    held: Counter[float] = Counter()
    for seed in range(200):
        held.update(fed([0] * 24, capacity=6, seed=seed, batch=24)["memory/windows"].flatten().tolist())
    expected = 200 * 6 / 24  # 50, standard deviation 6.1
    assert min(held[number] for number in range(24)) > expected - 4 * 6.1
    assert max(held.values()) < expected + 4 * 6.1


@pytest.mark.parametrize("batch", [4, 60])
def test_batches_may_be_cut_anywhere_and_a_seed_repeats_itself(batch: int) -> None:
    labels = [(7 * number) % 3 for number in range(60)]
    one, other = fed(labels), fed(labels, batch=batch)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(fed(labels, seed=1)["memory/windows"], one["memory/windows"])


def test_neither_the_memory_given_nor_the_global_generator_is_touched() -> None:
    memory = fed([0, 1, 2] * 4, capacity=6)
    before = {name: value.clone() for name, value in memory.items()}
    drawn = torch.random.get_rng_state()
    after = offer(memory, torch.full((30, 1, 1), 99.0), torch.tensor([0, 1, 2] * 10))
    assert after["memory/windows"].max() == 99
    assert all(torch.equal(memory[name], before[name]) for name in memory)
    assert torch.equal(torch.random.get_rng_state(), drawn)


def test_room_for_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="capacity"):
        start_reservoir(0, SHAPE, 3, 0)
