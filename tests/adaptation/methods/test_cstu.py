"""RoTTA's memory against the published rules, followed literally with a list per class."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from acclimate.adaptation.methods.cstu import Cstu


@dataclass
class Item:
    number: int
    entropy: float
    age: int = 0


def literally(entries: list[tuple[int, float]], capacity: int, class_count: int) -> list[list[Item]]:
    """Follow the rules with lists, one newcomer after the other."""
    lists: list[list[Item]] = [[] for _ in range(class_count)]

    def score(item: Item) -> float:
        return 1 / (1 + math.exp(-item.age / capacity)) + item.entropy / math.log(class_count)

    for number, (cls, entropy) in enumerate(entries):
        newcomer = Item(number, entropy)
        if len(lists[cls]) < capacity / class_count:
            full = sum(map(len, lists)) == capacity
            largest = max(map(len, lists))
            rivals = [k for k in range(class_count) if len(lists[k]) == largest] if full else []
        else:
            rivals = [cls]
        enters = True
        if rivals:
            worst, owner = max(((item, k) for k in rivals for item in lists[k]), key=lambda pair: score(pair[0]))
            enters = score(worst) > score(newcomer)
            if enters:
                lists[owner].remove(worst)
        if enters:
            lists[cls].append(newcomer)
        for item in (item for items in lists for item in items):
            item.age += 1
    return lists


def stream(count: int, class_count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return windows that hold their own number, in runs of one class, and entropies."""
    rng = np.random.default_rng(seed)
    classes = torch.from_numpy(np.repeat(rng.integers(0, class_count, count // 10 + 1), 10)[:count])
    return torch.arange(float(count)).reshape(-1, 1, 1), classes, torch.from_numpy(rng.uniform(0, 1, count)).float()


def contents(memory: Cstu) -> list[tuple[int, int, int, float]]:
    columns = (memory.windows[:, 0, 0], memory.classes, memory.ages, memory.entropies)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return sorted((int(number), cls, age, entropy) for number, cls, age, entropy in rows if cls >= 0)


@pytest.mark.parametrize(("capacity", "class_count"), [(8, 3), (9, 3), (4, 6), (64, 5)])
@pytest.mark.parametrize("count", [5, 60, 300])
def test_the_memory_holds_what_the_published_rules_hold(capacity: int, class_count: int, count: int) -> None:
    windows, classes, entropies = stream(count, class_count, seed=capacity)
    memory = Cstu.empty(capacity, windows[0]).with_windows(windows, classes, entropies, class_count)
    lists = literally(list(zip(classes.tolist(), entropies.tolist(), strict=True)), capacity, class_count)
    expected = sorted((i.number, k, i.age, i.entropy) for k, items in enumerate(lists) for i in items)
    assert contents(memory) == expected


def test_one_by_one_is_as_good_as_all_at_once_and_nothing_is_written() -> None:
    windows, classes, entropies = stream(100, 3, seed=0)
    start = Cstu.empty(8, windows[0])
    before = {name: value.clone() for name, value in start.state().items()}
    whole, single = start.with_windows(windows, classes, entropies, 3), start
    for i in range(100):
        single = Cstu.of(single.with_windows(windows[i : i + 1], classes[i : i + 1], entropies[i : i + 1], 3).state())
    assert all(torch.equal(single.state()[name], value) for name, value in whole.state().items())
    assert all(torch.equal(start.state()[name], value) for name, value in before.items())


def test_a_long_run_of_one_class_does_not_push_the_others_out() -> None:
    windows, _, entropies = stream(500, 3, seed=1)
    classes = torch.cat((torch.tensor([0, 1, 2] * 10), torch.zeros(470, dtype=torch.int64)))
    memory = Cstu.empty(9, windows[0]).with_windows(windows, classes, entropies, 3)
    assert torch.bincount(memory.classes).tolist() == [3, 3, 3]


def test_a_window_without_a_finite_entropy_stays_outside() -> None:
    windows, classes, _ = stream(2, 3, seed=1)
    memory = Cstu.empty(9, windows[0]).with_windows(windows, classes, torch.tensor([torch.nan, 0.1]), 3)
    assert [number for number, *_ in contents(memory)] == [1]
