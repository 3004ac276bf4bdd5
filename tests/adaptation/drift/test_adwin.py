"""ADWIN on error bits: against river, in little memory, through a restart."""

import json
from typing import Any

import numpy as np
import pytest

from acclimate.adaptation.drift.adwin import Adwin, AdwinState, from_numbers, to_numbers
from acclimate.adaptation.errors import ConfigError, DataError


def errors(rates: list[float], each: int, seed: int) -> list[int]:
    rng = np.random.default_rng(seed)
    return (rng.random(each * len(rates)) < np.repeat(rates, each)).astype(int).tolist()


def first_change(bits: list[int]) -> int | None:
    detector, state = Adwin(), AdwinState()
    for index, bit in enumerate(bits):
        state, change = detector.observe(state, bit)
        if change:
            return index
    return None


def rivers() -> Any:
    from river.drift import ADWIN  # two seconds that only a process that runs these tests spends

    return ADWIN(delta=0.002)


def first_change_of_river(bits: list[int]) -> int | None:
    detector = rivers()
    for index, bit in enumerate(bits):
        detector.update(bit)
        if detector.drift_detected:
            return index
    return None


@pytest.mark.parametrize("rates", [[0.1, 0.5], [0.5, 0.1], [0.2, 0.35], [0.0, 1.0]])
def test_a_change_is_found_when_river_finds_it_or_one_look_before(rates: list[float]) -> None:
    for seed in range(6):
        bits = errors(rates, 1200, seed)
        ours, rivers = first_change(bits), first_change_of_river(bits)
        assert ours is not None
        assert rivers is not None
        # River skips some boundaries, so it can only be later; both look every 32nd bit.
        assert ours >= 1200
        assert 0 <= rivers - ours <= 64


def test_without_a_change_the_window_is_the_same_as_river_s() -> None:
    detector, state, river = Adwin(), AdwinState(), rivers()
    for bit in errors([0.3], 3000, seed=1):
        state, change = detector.observe(state, bit)
        river.update(bit)
        assert change is None
    assert (state.width, state.error_rate) == (river.width, pytest.approx(river.estimation))


def test_a_steady_error_rate_raises_less_than_one_false_change_in_10_000_bits() -> None:
    changes = 0
    for seed in range(4):
        detector, state = Adwin(), AdwinState()
        for bit in errors([0.2], 5000, seed):
            state, _ = detector.observe(state, bit)
        changes += state.changes
    assert changes <= 2


def test_a_change_says_from_what_to_what_and_the_rate_follows() -> None:
    detector, state, changes = Adwin(), AdwinState(), []
    for bit in errors([0.1, 0.6], 1000, seed=2):
        state, change = detector.observe(state, bit)
        changes += [change] if change else []
    assert changes[0].before < changes[0].after
    assert changes[0].forgotten > 500
    assert state.changes == len(changes)
    assert state.error_rate == pytest.approx(0.6, abs=0.05)


def test_the_memory_grows_by_the_logarithm_of_the_labels() -> None:
    detector, state = Adwin(), AdwinState()
    for bit in errors([0.3], 20_000, seed=3):
        state, _ = detector.observe(state, bit)
    assert state.width == state.bits == 20_000
    assert all(len(row) <= 5 for row in state.rows)
    assert len(to_numbers(state)) <= 2 + 6 * 13


def test_a_state_written_as_integers_continues_exactly() -> None:
    detector, whole = Adwin(), AdwinState()
    bits = errors([0.1, 0.4], 400, seed=4)
    for bit in bits:
        whole, _ = detector.observe(whole, bit)
    state = AdwinState()
    for index, bit in enumerate(bits):
        if index in (1, 300, 555):
            state = from_numbers(json.loads(json.dumps(to_numbers(state))))
        state, _ = detector.observe(state, bit)
    assert state == whole
    assert from_numbers(to_numbers(detector.reset())) == detector.reset() == AdwinState()
    assert detector.reset().error_rate is None


@pytest.mark.parametrize("bit", [0, 1])
def test_answers_that_are_always_right_or_always_wrong_never_alarm(bit: int) -> None:
    assert first_change([bit] * 2000) is None


@pytest.mark.parametrize("bit", [2, -1, 0.5, float("nan")])
def test_what_is_no_bit_is_refused(bit: float) -> None:
    with pytest.raises(DataError, match="0 \\(right\\) or 1"):
        Adwin().observe(AdwinState(), bit)  # type: ignore[arg-type]


@pytest.mark.parametrize("numbers", [[], [3], [-1, 0], [1, 0, 2, 1], [1, 0, 1, 2], [1, 0, -1, 1], [4, 0, 1, 1, 1, 3]])
def test_a_damaged_state_is_refused(numbers: list[int]) -> None:
    with pytest.raises(DataError, match="reset the"):
        from_numbers(numbers)


@pytest.mark.parametrize("changes", [{"delta": 0.0}, {"delta": 1.0}, {"clock": 0}, {"buckets": 1}, {"shortest": 0}])
def test_impossible_settings_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Adwin(**changes)  # type: ignore[arg-type]
