"""CTA at test: what is frozen stays frozen, and each switch does what its ablation needs."""

import pytest
import torch

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.method import State
from acclimate.adaptation.methods.cta import LEAST, Cta
from acclimate.adaptation.model.network import Network
from tests.adaptation.alignment.test_align import aligned, source
from tests.adaptation.tiny_nets import tones


def windows(count: int, seed: int = 8) -> torch.Tensor:
    return torch.from_numpy(tones(count, seed)[0])


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_without_learning_and_refresh_the_answers_are_those_of_the_two_frozen_encoders() -> None:
    context, _ = source()
    method = Cta(context, aligned(), learning_rate=0.0, refresh=False)
    batch = windows(64)
    state, step = method.adapt_batch(method.reset(), batch)
    network = Network(context.model)
    features = network.forward(batch, aligned().encoder).features
    mine = features @ aligned().head["weight"].T + aligned().head["bias"]
    expected = torch.softmax((network.forward(batch).logits + mine) / 2, dim=1)
    assert torch.equal(step.probabilities, expected)
    assert all(torch.equal(state[name], aligned().encoder[name]) for name in method.adapts)
    alone = Cta(context, aligned(), learning_rate=0.0, refresh=False, rule="refit")
    assert torch.equal(alone.adapt_batch(alone.reset(), batch)[1].probabilities, torch.softmax(mine, dim=1))


def test_steps_move_the_encoder_alone() -> None:
    context, _ = source()
    found = aligned()
    before = [dict(part) for part in (found.encoder, found.head, found.projector, context.model.state_dict())]
    copies = [{name: value.clone() for name, value in part.items()} for part in before]
    method = Cta(context, found, steps=3)
    state = method.reset()
    for turn in range(3):
        state, step = method.adapt_batch(state, windows(64, seed=turn))
        assert step.updates == 3
    assert all(torch.equal(p[name], c[name]) for p, c in zip(before, copies, strict=True) for name in p)
    moved = {name for name in method.adapts if not torch.equal(state[name], found.encoder[name])}
    assert moved == set(method.adapts)
    assert "blocks.1.map.weight" in method.adapts
    assert "blocks.0.map.weight" not in method.adapts


def test_a_refresh_without_learning_moves_the_statistics_alone() -> None:
    context, _ = source()
    method = Cta(context, aligned(), learning_rate=0.0)
    state, _ = method.adapt_batch(method.reset(), windows(64))
    for name in method.adapts:
        moved = not torch.equal(state[name], aligned().encoder[name])
        assert moved == ("running" in name)


def test_in_episodes_a_batch_does_not_feel_the_one_before() -> None:
    context, _ = source()
    method = Cta(context, aligned(), episodic=True, learning_rate=0.0)  # views are draws; statistics of them are not
    first = method.reset()
    after, _ = method.adapt_batch(first, 3 * windows(64, seed=1))
    fresh = {**after, "generator": first["generator"]}
    assert torch.equal(
        method.adapt_batch(fresh, windows(64, seed=2))[1].probabilities,
        method.adapt_batch(first, windows(64, seed=2))[1].probabilities,
    )


def test_a_saved_state_gives_the_next_ten_answers_bit_for_bit() -> None:
    context, _ = source()
    method = Cta(context, aligned())
    state = method.reset()
    for turn in range(3):
        state, _ = method.adapt_batch(state, windows(40, seed=turn))
    saved = {name: value.clone() for name, value in state.items()}
    again = Cta(context, aligned())
    for turn in range(10):
        state, step = method.adapt_batch(state, windows(20, seed=20 + turn))
        saved, other = again.adapt_batch(saved, windows(20, seed=20 + turn))
        assert torch.equal(step.probabilities, other.probabilities)
    assert same(state, saved)


def test_small_batches_are_gathered_until_there_are_enough() -> None:
    context, _ = source()
    method = Cta(context, aligned())
    state, counts = method.reset(), []
    for turn in range(5):
        state, step = method.adapt_batch(state, windows(10, seed=turn))
        counts.append((step.updates, int(state["gathered"])))
    assert counts == [(0, 10), (0, 20), (0, 30), (1, 0), (0, 10)]
    assert LEAST == 32


def test_windows_that_no_sensor_sends_are_answered_by_the_source_and_leave_no_trace() -> None:
    context, _ = source()
    method = Cta(context, aligned())
    bad = windows(64)
    bad[:] = torch.nan
    state, step = method.adapt_batch(method.reset(), bad)
    assert same(state, method.reset())
    assert bool(torch.isfinite(step.probabilities).all())
    assert step.updates == 0


def test_a_hundred_steps_on_the_source_cost_less_than_a_point() -> None:
    context, labels = source()
    method = Cta(context, aligned())
    state, generator = method.reset(), torch.Generator().manual_seed(0)
    for _ in range(100):
        rows = torch.randperm(len(labels), generator=generator)[:64]
        state, _ = method.adapt_batch(state, context.all_windows[rows])
    start, end = (method.adapt_batch(each, context.all_windows)[1].probabilities for each in (method.reset(), state))
    before, after = (float((each.argmax(dim=1) == labels).float().mean()) for each in (start, end))
    assert after > before - 0.01


def test_settings_that_cannot_be_are_refused() -> None:
    context, _ = source()
    with pytest.raises(ConfigError, match="steps"):
        Cta(context, aligned(), steps=-1)
