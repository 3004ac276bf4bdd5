"""The update transaction: what is rolled back leaves no trace, and what is frozen is the source."""

import dataclasses
import hashlib
import math
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.guards.record import GuardSettings, Record
from acclimate.adaptation.guards.transaction import Guarded, deviation
from acclimate.adaptation.method import SourceContext, State, Step
from acclimate.adaptation.methods.tent import Tent
from acclimate.adaptation.model.network import Network
from tests.adaptation.tiny_nets import tones, trained_on_tones

GAMMA, BETA = "blocks.1.norm.weight", "blocks.1.norm.bias"


def context() -> SourceContext:
    windows, labels = tones(150, seed=11)
    return SourceContext(trained_on_tones()[0], torch.from_numpy(windows), torch.from_numpy(labels))


def stream(count: int = 320, seed: int = 12) -> Tensor:
    return torch.from_numpy(tones(count, seed)[0])


def source_answers(windows: Tensor) -> Tensor:
    return torch.softmax(Network(context().model).forward(windows).logits, dim=1)


def digest(state: State) -> str:
    parts = (name.encode() + value.numpy().tobytes() for name, value in sorted(state.items()))
    return hashlib.sha256(b"".join(parts)).hexdigest()


def of_method(state: State) -> State:
    return {name: value for name, value in state.items() if not name.startswith("guard/")}


class Scripted:
    """Answers with the gamma and beta of the last layer, which a given function then changes; counts its calls."""

    adapts: tuple[str, ...] = (GAMMA, BETA)
    stateless = False

    def __init__(self, change: Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
        self._network, self._change = Network(context().model), change
        self.seen: list[Tensor] = []

    def reset(self) -> State:
        return {**{name: self._network.tensors[name] for name in self.adapts}, "steps": torch.tensor(0)}

    def adapt_batch(self, state: State, windows: Tensor) -> tuple[State, Step]:
        self.seen.append(windows)
        probabilities = torch.softmax(self._network.forward(windows, state).logits, dim=1)
        gamma, beta = self._change(int(state["steps"]), state[GAMMA], state[BETA])
        new = {GAMMA: gamma, BETA: beta, "steps": state["steps"] + 1}
        return new, Step(probabilities, updates=1, selected=len(windows))


def idle(_steps: int, gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    return gamma, beta


def collapse(_steps: int, gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    return gamma * 0, beta * 0 + 1


def run(
    guarded: Guarded, windows: Tensor, batch_size: int, state: State | None = None
) -> tuple[State, list[Step], list[Record]]:
    state, steps, records = guarded.reset() if state is None else state, [], []
    for batch in torch.split(windows, batch_size):
        state, step, record = guarded.transact(state, batch)
        steps.append(step)
        records.append(record)
    return state, steps, records


def test_a_method_that_changes_nothing_is_committed_with_full_agreement_and_no_deviation() -> None:
    windows = stream(64)
    _, steps, records = run(Guarded(Scripted(idle), context()), windows, 32)
    for record in records:
        assert record.action == "committed"
        assert record.live is not None
        assert record.live.agreement == pytest.approx(1.0, abs=1e-12)
        assert (record.deviation, record.canary_drop, record.canary_nats) == (0.0, 0.0, 0.0)
    assert [record.updates for record in records] == [1, 2]
    assert torch.equal(torch.cat([step.probabilities for step in steps]), source_answers(windows))


def test_a_good_update_is_committed_and_its_answers_are_the_method_s() -> None:
    def small(_steps: int, gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        return gamma * 1.01, beta

    bare, windows = Scripted(small), stream(64)
    state, steps, records = run(Guarded(Scripted(small), context()), windows, 32)
    expected, first = bare.adapt_batch(bare.reset(), windows[:32])
    expected, second = bare.adapt_batch(expected, windows[32:])
    assert digest(of_method(state)) == digest(expected)
    assert torch.equal(steps[1].probabilities, second.probabilities)
    assert torch.equal(steps[0].probabilities, first.probabilities)
    assert records[0].deviation == pytest.approx(0.01, rel=1e-3)


def test_a_rolled_back_update_leaves_no_trace_and_the_source_answers() -> None:
    guarded, windows = Guarded(Scripted(collapse), context()), stream(32)
    state = guarded.reset()
    after, step, record = guarded.transact(state, windows)
    assert (record.action, record.reasons) == ("rolled_back", ("canary",))
    assert record.canary_drop > 0.02
    assert digest(of_method(after)) == digest(of_method(state))
    assert torch.equal(step.probabilities, source_answers(windows))
    assert (step.updates, step.selected) == (0, 0)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_an_update_that_is_not_finite_is_rolled_back(poison: float) -> None:
    guarded = Guarded(Scripted(lambda _, gamma, beta: (gamma * poison, beta)), context())
    state = guarded.reset()
    after, _, record = guarded.transact(state, stream(32))
    assert (record.action, record.reasons) == ("rolled_back", ("not_finite",))
    assert digest(of_method(after)) == digest(of_method(state))


@pytest.mark.parametrize("batch_size", [8, 64])
def test_a_collapse_without_a_canary_is_found_by_the_live_check_within_3_batches(batch_size: int) -> None:
    def later(steps: int, gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        return collapse(steps, gamma, beta) if steps == 0 else (gamma, beta)

    guarded = Guarded(Scripted(later), context(), GuardSettings(canary_size=0, n_min=0))
    windows = stream(4 * batch_size)
    state, steps, records = run(guarded, windows, batch_size)
    actions = [record.action for record in records]
    assert actions[0] == "committed"
    assert "restored" in actions[1:]
    at = actions.index("restored")
    assert torch.equal(steps[at].probabilities, source_answers(torch.split(windows, batch_size)[at]))
    assert steps[at].resets == 1
    state, _, _ = run(guarded, windows[: (at + 1) * batch_size], batch_size)
    fresh = guarded.reset()
    changed = {name for name in fresh if not torch.equal(state[name], fresh[name])}
    assert changed == {"guard/progress"}  # the rollback itself is remembered, nothing else


def test_three_rollbacks_freeze_and_the_frozen_device_is_the_source_until_it_thaws() -> None:
    method = Scripted(collapse)
    guarded = Guarded(method, context(), GuardSettings(cool_down_windows=64))
    windows = stream(32 * 8)
    state, steps, records = run(guarded, windows, 32)
    assert [record.action for record in records] == ["rolled_back"] * 3 + ["frozen"] * 2 + ["rolled_back"] * 3
    assert [record.frozen_windows for record in records] == [0, 0, 64, 32, 0, 0, 0, 64]
    assert torch.equal(torch.cat([step.probabilities for step in steps]), source_answers(windows))
    assert len(method.seen) == 1 + 6  # once to learn its agreement, never while frozen
    assert digest(of_method(state)) == digest(of_method(guarded.reset()))


def test_rollbacks_that_are_far_apart_do_not_freeze() -> None:
    def at_times(steps: int, gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        return collapse(steps, gamma, beta) if steps % 12 == 11 else (gamma, beta)

    class Forgetful(Scripted):
        """Counts its steps outside of its state, so that a rollback does not undo the count."""

        def adapt_batch(self, state: State, windows: Tensor) -> tuple[State, Step]:
            return super().adapt_batch({**state, "steps": torch.tensor(len(self.seen))}, windows)

    _, _, records = run(Guarded(Forgetful(at_times), context()), stream(8 * 60), 8)
    actions = [record.action for record in records]
    assert actions.count("rolled_back") == 5
    assert "frozen" not in actions


def test_a_harmful_method_at_batch_size_1_is_frozen_in_the_end() -> None:
    guarded = Guarded(Scripted(collapse), context(), GuardSettings(canary_size=0))
    _, _, records = run(guarded, stream(150), 1)
    assert [record.action for record in records].count("restored") == 3
    assert records[-1].action == "frozen"


def test_too_few_reliable_windows_keep_the_old_state_and_the_method_s_answers() -> None:
    guarded = Guarded(Scripted(lambda _, gamma, beta: (gamma * 1.01, beta)), context(), GuardSettings(n_min=33))
    state, windows = guarded.reset(), stream(64)
    after, step, record = guarded.transact(state, windows)
    assert record.reliable > 33  # trained well enough
    assert record.action == "committed"
    unsure = Guarded(
        Scripted(lambda _, gamma, beta: (gamma * 1.01, beta)), context(), GuardSettings(n_min=33, reliable_share=1e-9)
    )
    after, step, record = unsure.transact(state, windows)
    assert (record.action, record.reasons) == ("skipped", ("unreliable",))
    assert digest(of_method(after)) == digest(of_method(state))
    assert step.updates == 0
    assert torch.equal(step.probabilities, source_answers(windows))  # gamma is the source's still


def test_periodic_reset_counts_per_device_and_survives_a_restart() -> None:
    def grow(_steps: int, gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        return gamma * 1.001, beta

    guarded = Guarded(Scripted(grow), context(), GuardSettings(reset_period=5, reset_jitter=0.0))
    state, _, records = run(guarded, stream(8 * 3), 8)
    loaded = load(save(dict(state)))
    _, steps, more = run(guarded, stream(8 * 8, seed=5), 8, loaded)
    assert [record.periodic_reset for record in [*records, *more]] == [False] * 5 + [True] + [False] * 4 + [True]
    assert [record.updates for record in more] == [4, 5, 1, 2, 3, 4, 5, 1]
    assert sum(step.resets for step in steps) == 2
    assert torch.equal(steps[2].probabilities, source_answers(stream(8 * 8, seed=5)[16:24]))


def test_devices_reset_at_different_times() -> None:
    def first_reset(device: str) -> int:
        guarded = Guarded(Scripted(idle), context(), GuardSettings(reset_period=8, reset_jitter=0.5), device)
        return [record.periodic_reset for record in run(guarded, stream(8 * 14), 8)[2]].index(True)

    assert len({first_reset(device) for device in ("a", "b", "c", "d")}) > 1
    assert first_reset("a") == first_reset("a")


def test_broken_windows_are_answered_by_the_source_and_never_reach_the_method() -> None:
    windows = stream(32)
    windows[3, 0, 5] = math.nan
    windows[7] = 0.0
    given = windows.clone()
    method = Scripted(lambda _, gamma, beta: (gamma * 1.01, beta))
    _, step, record = (guarded := Guarded(method, context())).transact(guarded.reset(), windows)
    assert (record.windows, record.sane) == (32, 30)
    assert record.refused == {"not_finite": 1, "out_of_range": 0, "flat_line": 1}
    kept = [index for index in range(32) if index not in (3, 7)]
    assert torch.equal(method.seen[-1], windows[kept])
    assert torch.isfinite(step.probabilities).all()
    assert torch.equal(step.probabilities[7], source_answers(windows[7:8].nan_to_num())[0])
    assert torch.equal(windows.nan_to_num(), given.nan_to_num())


def test_a_batch_with_no_sane_window_asks_the_method_nothing() -> None:
    method = Scripted(collapse)
    guarded = Guarded(method, context())
    calls, state = len(method.seen), guarded.reset()
    after, step, record = guarded.transact(state, torch.full((4, 2, 32), math.inf))
    assert (record.action, record.reasons, len(method.seen)) == ("skipped", ("input",), calls)
    assert digest(after) == digest(state)
    assert torch.isfinite(step.probabilities).all()


def test_answers_that_are_not_finite_restore_the_source() -> None:
    guarded, windows = Guarded(Scripted(idle), context()), stream(16)
    state = {**guarded.reset(), GAMMA: torch.full((8,), math.nan)}
    after, step, record = guarded.transact(state, windows)
    assert (record.action, record.reasons) == ("restored", ("not_finite",))
    assert digest(of_method(after)) == digest(of_method(guarded.reset()))
    assert torch.equal(step.probabilities, source_answers(windows))


def test_empty_slots_of_a_memory_may_be_infinite_and_nothing_may_be_nan() -> None:
    class Slots(Scripted):
        def __init__(self, empty: float) -> None:
            super().__init__(idle)
            self._empty = empty

        def adapt_batch(self, state: State, windows: Tensor) -> tuple[State, Step]:
            new, step = super().adapt_batch(state, windows)
            return {**new, "slots": torch.tensor([0.5, self._empty])}, step

    for empty, action in ((math.inf, "committed"), (math.nan, "rolled_back")):
        assert run(Guarded(Slots(empty), context()), stream(16), 16)[2][0].action == action


def test_a_method_that_replaces_no_tensor_is_never_skipped() -> None:
    class Answers(Scripted):
        adapts = ()

        def reset(self) -> State:
            return {"steps": torch.tensor(0)}

        def adapt_batch(self, state: State, windows: Tensor) -> tuple[State, Step]:
            return {"steps": state["steps"] + 1}, Step(source_answers(windows), updates=1)

    guarded = Guarded(Answers(idle), context(), GuardSettings(reliable_share=1e-9))
    assert run(guarded, stream(16), 16)[2][0].action == "committed"


def test_the_canary_is_left_out_where_there_is_nothing_it_may_judge() -> None:
    class Statistics(Scripted):
        adapts = (GAMMA, BETA, "blocks.0.norm.running_mean")

    class Nothing(Scripted):
        def reset(self) -> State:
            return {}

        def adapt_batch(self, state: State, windows: Tensor) -> tuple[State, Step]:
            return state, super().adapt_batch(super().reset(), windows)[1]

    assert Guarded(Scripted(idle), context()).canary_judges
    assert not Guarded(Statistics(idle), context()).canary_judges
    assert not Guarded(Nothing(idle), context()).canary_judges
    assert not Guarded(Scripted(idle), context(), GuardSettings(canary_size=0)).canary_judges


@pytest.mark.parametrize(("batch_size", "count"), [(1, 180), (16, 300)])
def test_tent_that_learns_far_too_fast_behind_the_guards_does_little_harm_in_time_order(
    batch_size: int, count: int
) -> None:
    signals, classes = tones(count, seed=21)
    order = classes.argsort(kind="stable")  # one class after the other
    windows, labels = torch.from_numpy(signals[order]), torch.from_numpy(classes[order])

    def accuracy(probabilities: Tensor) -> float:
        return float((probabilities.argmax(dim=1) == labels).double().mean())

    bare, state, answers = Tent(context(), learning_rate=0.3), Tent(context()).reset(), []
    for batch in torch.split(windows, batch_size):
        state, step = bare.adapt_batch(state, batch)
        answers.append(step.probabilities)
    guarded = Guarded(Tent(context(), learning_rate=0.3), context())
    _, steps, _ = run(guarded, windows, batch_size)
    source = accuracy(source_answers(windows))
    assert accuracy(torch.cat(answers)) < source - 0.2
    assert accuracy(torch.cat([step.probabilities for step in steps])) > source - 0.1


def test_it_continues_bit_for_bit_after_its_state_was_saved_and_loaded() -> None:
    guarded, windows = Guarded(Tent(context(), learning_rate=0.02), context()), stream(160)
    whole, steps, _ = run(guarded, windows, 16)
    half, _, _ = run(guarded, windows[:80], 16)
    again, later, _ = run(guarded, windows[80:], 16, load(save(dict(half))))
    assert digest(whole) == digest(again)
    assert all(torch.equal(a.probabilities, b.probabilities) for a, b in zip(steps[5:], later, strict=True))


def test_a_guarded_method_is_a_method_and_is_not_guarded_twice() -> None:
    guarded = Guarded(Scripted(idle), context())
    state = guarded.reset()
    assert guarded.adapts == (GAMMA, BETA)
    assert torch.equal(guarded.adapt_batch(state, stream(8))[1].probabilities, source_answers(stream(8)))
    with pytest.raises(ConfigError, match="not guarded"):
        Guarded(guarded, context())


def test_a_record_cannot_be_changed_and_settings_out_of_range_are_errors() -> None:
    record = run(Guarded(Scripted(idle), context()), stream(8), 8)[2][0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.action = "frozen"  # type: ignore[misc]
    for settings in ({"n_min": -1}, {"rollbacks": 0}, {"per_updates": 0}, {"cool_down_windows": 0}):
        with pytest.raises(ConfigError, match="guard settings"):
            GuardSettings(**settings)  # type: ignore[arg-type]


def test_deviation_is_the_largest_relative_change_of_one_tensor() -> None:
    source = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([1.0]), "zero": torch.zeros(2), "other": torch.ones(1)}
    state = {"a": torch.tensor([3.0, 4.5]), "b": torch.tensor([0.7]), "zero": torch.tensor([0.0, 0.2])}
    assert deviation(state, source) == pytest.approx(0.3)
    assert deviation({}, source) == 0.0
