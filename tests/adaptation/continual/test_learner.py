"""The learning step: pure, resumable bit for bit with every part, and each part does what it is there for."""

import math
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from acclimate.adaptation.continual.learner import Arrived, Learner
from acclimate.adaptation.continual.settings import PARTS, LearnerSettings, parse_method
from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.model.nets import Classifier, build
from acclimate.adaptation.model.spec import NetworkSpec
from acclimate.adaptation.projection.norms import deviation_norms

METHODS = [
    *PARTS,
    "ftp+er",
    "spd+er",
    "tpgm+er",
    "l2sp+er",
    "ftp+lwf+agem",
    "ftp+er+adapters+lwf",
    "tpgm+agem+adapters",
]
SPEC = NetworkSpec("mlp", 2, 1, 2, (8,))


def task(seed: int, turned: bool, count: int = 40) -> Arrived:
    """Return two clusters, left and right, or swapped and higher up."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (count,), generator=generator)
    side = (2.0 * labels - 1) * (-1 if turned else 1)
    centre = torch.stack([side, torch.full_like(side, 3.0 if turned else 0.0)], dim=1)
    windows = centre + 0.2 * torch.randn(count, 2, generator=generator)
    return Arrived(windows[:, :, None], labels, torch.full((count,), int(turned)))


def source_model() -> Classifier:
    torch.manual_seed(0)
    model = build(SPEC)
    data = task(0, turned=False, count=200)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.windows), data.labels).backward()
        optimizer.step()
    return model.eval()


SOURCE = source_model()


def learner(method: str, seed: int = 0, **settings: Any) -> Learner:
    values = {"method": method, "steps": 5, "batch": 16, "memory": 60, **settings}
    return Learner(SOURCE, task(0, turned=False), 2, LearnerSettings(**values), seed)


def accuracy(model: nn.Module, data: Arrived) -> float:
    with torch.no_grad():
        return float((model(data.windows).argmax(dim=1) == data.labels).float().mean())


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("method", METHODS)
def test_a_state_that_was_saved_goes_on_bit_for_bit(method: str) -> None:
    agent = learner(method)
    state, _ = agent.learn(agent.start(), task(1, turned=True))
    saved = save({name: value.contiguous() for name, value in state.items()})
    straight, report = agent.learn(state, task(2, turned=True))
    again, same = learner(method).learn(load(saved), task(2, turned=True))
    assert report.steps == 5
    assert report == same
    assert equal(dict(straight), dict(again))


@pytest.mark.parametrize("method", METHODS)
def test_learning_writes_into_nothing_that_it_was_given(method: str) -> None:
    agent = learner(method)
    state, _ = agent.learn(agent.start(), task(1, turned=True))
    before = {name: value.clone() for name, value in state.items()}
    source = {name: value.clone() for name, value in SOURCE.state_dict().items()}
    after, _ = agent.learn(state, task(2, turned=True))
    assert equal(dict(state), before)
    assert equal(SOURCE.state_dict(), source)
    assert not torch.equal(after["model/head.weight"], state["model/head.weight"])


@pytest.mark.parametrize("method", ["naive", "er"])
def test_the_draws_are_the_seed_s(method: str) -> None:
    first, second, other = (
        learner(method, seed).learn(learner(method, seed).start(), task(1, turned=True))[0] for seed in (0, 0, 1)
    )
    assert equal(dict(first), dict(second))
    assert not torch.equal(first["model/head.weight"], other["model/head.weight"])


def test_naive_steps_are_those_of_torch_s_adamw() -> None:
    one = task(1, turned=True, count=1)  # every batch is this window
    agent = learner("naive", least=1, learning_rate=0.01)
    state, _ = agent.learn(agent.start(), one)
    model = source_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.0)
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(one.windows.repeat(16, 1, 1)), one.labels.repeat(16)).backward()
        optimizer.step()
    for name, value in model.named_parameters():
        torch.testing.assert_close(state[f"model/{name}"], value.detach(), rtol=0, atol=1e-4)


def test_labels_wait_until_enough_are_there_or_the_end_has_come() -> None:
    agent = learner("naive", least=8)
    state, report = agent.learn(agent.start(), task(1, turned=True, count=5))
    assert (report.steps, report.waiting, report.loss) == (0, 5, None)
    assert torch.equal(state["model/head.weight"], SOURCE.head.weight)
    unfinished, finished = (
        agent.learn(state, task(2, turned=True, count=2)),
        agent.learn(state, task(2, turned=True, count=2), finish=True),
    )
    assert (unfinished[1].steps, finished[1].steps, finished[1].waiting) == (0, 5, 0)
    nothing = task(3, turned=True, count=0)
    assert agent.learn(finished[0], nothing, finish=True)[1].steps == 0
    assert agent.learn(unfinished[0], task(3, turned=True, count=1))[1].steps == 5


def test_the_running_statistics_stay_the_anchor_s() -> None:
    agent = learner("er")
    state, _ = agent.learn(agent.start(), task(1, turned=True))
    model = agent.model(state)
    assert not model.training
    for name, value in SOURCE.named_buffers():
        assert torch.equal(dict(model.named_buffers())[name], value)


def test_what_a_batch_of_the_new_makes_forgotten_replay_keeps() -> None:
    old, new = task(9, turned=False, count=200), task(10, turned=True, count=200)
    found = {}
    for method in ("naive", "er"):
        agent = learner(method, learning_rate=0.05, steps=60)
        state, _ = agent.learn(agent.start(), task(1, turned=True))
        found[method] = (accuracy(agent.model(state), old), accuracy(agent.model(state), new))
    assert accuracy(SOURCE, old) == 1.0
    assert found["naive"][0] < 0.8
    assert found["er"][0] > 0.95
    assert all(after > 0.95 for _, after in found.values())


def test_a_batch_holds_new_labels_of_the_device_that_sent_them_and_what_has_been() -> None:
    agent = learner("er", batch=40, steps=1)
    first, second = task(1, turned=True), task(2, turned=True)
    later = Arrived(second.windows, second.labels, torch.full_like(second.labels, 2))
    state, _ = agent.learn(agent.start(), first)
    seen: list[Tensor] = []
    plain = Learner._logits

    def look(self: Learner, named: Any, own: Any, batch: Any) -> Tensor:
        seen.append(batch.devices)
        return plain(self, named, own, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "_logits", look)
        agent.learn(state, later)
    (devices,) = seen
    assert (devices[:20] == 2).all()
    assert devices[20:30].tolist() == [2, 0] * 5  # the source's, every other as if it came from there
    assert set(devices[30:].tolist()) == {1, 2}
    seen.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "_logits", look)
        few = later.take(slice(0, 8))
        agent.learn(state, Arrived(few.windows, few.labels, few.devices), finish=True)
    (devices,) = seen
    assert (devices[:8] == 2).all()
    assert devices[8:24].tolist() == [2, 0] * 8
    assert len(devices) == 40


@pytest.mark.long
def test_devices_that_contradict_each_other_can_be_learned_with_adapters_alone() -> None:
    windows = task(1, turned=False).windows
    labels = task(1, turned=False).labels
    here, there = (Arrived(windows, answer, torch.full_like(labels, n)) for n, answer in ((1, labels), (2, 1 - labels)))
    found = {}
    for method in ("er", "er+adapters"):
        agent = learner(method, learning_rate=0.02, steps=600, recent=200, memory=200)
        state, _ = agent.learn(agent.start(), here)
        state, _ = agent.learn(state, there)
        found[method] = [accuracy(agent.model(state, int(data.devices[0])), data) for data in (here, there)]
    assert min(found["er"]) < 0.9
    assert min(found["er+adapters"]) > 0.95
    assert accuracy(agent.model(state), task(9, turned=False)) > 0.95


def test_a_device_that_comes_later_finds_room_and_what_was_learned_of_others_goes_on() -> None:
    agent = learner("er+adapters")
    state, _ = agent.learn(agent.start(), task(1, turned=True))
    assert len(state["adapters/head.weight"]) == 2
    far = task(2, turned=True)
    late, _ = agent.learn(state, Arrived(far.windows, far.labels, torch.full_like(far.labels, 4)))
    assert len(late["adapters/head.weight"]) == len(late["optimizer/adapters/head.weight/exp_avg"]) == 5
    assert int(late["optimizer/adapters/head.weight/step"]) == 10
    assert late["adapters/head.weight"][4].any()
    assert not late["adapters/head.weight"][2:4].any()


def test_what_the_source_said_of_its_own_windows_is_kept_and_new_windows_are_free() -> None:
    old, new = task(9, turned=False), task(10, turned=True)
    found = {}
    for method, price in (("er", 0.0), ("er+lwf", 50.0), ("lwf", 50.0)):
        agent = learner(method, learning_rate=0.02, steps=60, strength={"lwf": price})
        state, _ = agent.learn(agent.start(), task(1, turned=True))
        model = agent.model(state)
        with torch.no_grad():
            moved = float((model(old.windows) - SOURCE(old.windows)).abs().mean())
        found[method] = (moved, accuracy(model, new))
    assert found["er+lwf"][0] < 0.5 * found["er"][0]
    assert found["er+lwf"][1] > 0.95
    assert found["lwf"][1] < 0.5  # without replay the price is on the new windows


def test_a_device_that_memory_alone_still_knows_has_room() -> None:
    agent = learner("er+adapters", recent=10)
    first, second = task(1, turned=True), task(2, turned=True)
    both = Arrived(
        torch.cat([first.windows, second.windows]),
        torch.cat([first.labels, second.labels]),
        torch.cat([torch.full_like(first.labels, 5), torch.full_like(second.labels, 1)]),
    )
    state, report = agent.learn(agent.start(), both)
    assert report.steps == 5
    assert len(state["adapters/head.weight"]) == 6


@pytest.mark.parametrize("method", ["ftp", "tpgm"])
def test_a_projected_model_is_in_its_balls(method: str) -> None:
    agent = learner(method)
    state, _ = agent.learn(agent.start(), task(1, turned=True))
    for name, value in SOURCE.named_parameters():
        radius = state[f"optimizer/{name}/ftp_radius" if method == "ftp" else f"radius/{name}"]
        norms = deviation_norms(state[f"model/{name}"] - value.detach())
        assert float(norms.max()) <= float(radius) * 1.001 + 1e-6


@pytest.mark.parametrize("part", ["l2sp", "ewc", "lwf"])
def test_a_high_price_keeps_the_model_nearer_to_the_source(part: str) -> None:
    def moved(strength: float) -> float:
        agent = learner(part, strength={part: strength}, learning_rate=0.01, steps=30)
        state, _ = agent.learn(agent.start(), task(1, turned=True))
        return sum(float((state[f"model/{n}"] - v.detach()).norm()) for n, v in SOURCE.named_parameters())

    high = 1e7 if part == "ewc" else 1e3  # the information of a source that is sure of itself is tiny
    assert moved(high) < 0.7 * moved(0.0)


def test_a_new_anchor_is_where_the_model_is_and_forgets_the_old_radii() -> None:
    agent = learner("ftp")
    state, _ = agent.learn(agent.start(), task(1, turned=True))
    anchored = agent.anchored_here(state)
    assert torch.equal(anchored["anchor/head.weight"], state["model/head.weight"])
    assert not any(name.startswith("optimizer/") for name in anchored)
    after, report = agent.learn(anchored, task(2, turned=True))
    assert report.steps == 5
    assert int(after["optimizer/head.weight/ftp_step"]) == 5


def test_a_window_that_is_not_finite_makes_no_step_and_is_counted() -> None:
    agent = learner("er", least=1)
    bad = task(1, turned=True, count=1)
    state, report = agent.learn(agent.start(), Arrived(bad.windows * math.nan, bad.labels, bad.devices))
    assert (report.steps, report.skipped, report.loss) == (0, 5, None)
    assert torch.equal(state["model/head.weight"], SOURCE.head.weight)


@pytest.mark.parametrize(
    ("text", "words"),
    [("er+sgd", "expected some of"), ("ftp+spd", "ftp and spd exclude"), ("er+er", "each once"), ("", "expected some")],
)
def test_a_method_that_cannot_be_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_method(text)


@pytest.mark.parametrize("name", ["learning_rate", "steps", "batch", "least", "recent", "memory"])
def test_a_setting_that_cannot_be_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=name.replace("_", " ")):
        LearnerSettings(**{name: 0})  # type: ignore[arg-type]


def test_a_source_in_training_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match="training mode"):
        Learner(build(SPEC), task(0, turned=False), 2, LearnerSettings(), 0)
