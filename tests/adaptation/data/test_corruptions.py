"""The corruption simulator: pieces equal the whole, each kind does what its formula says, no more and no less."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from acclimate.adaptation.data.corruptions import (
    CORRUPTIONS,
    EVALUATION,
    EVALUATION_MIXTURES,
    KINDS,
    SEVERITIES,
    TUNING,
    TUNING_MIXTURES,
    applicable,
    centre_and_scale,
    corrupt,
    mixture,
    size_at,
)
from acclimate.adaptation.errors import ConfigError

SCALE = np.array([2.0, 0.5, 10.0])
CENTRE = np.array([100.0, 0.0, -30.0])
ALL = (*CORRUPTIONS, *TUNING_MIXTURES, *EVALUATION_MIXTURES)


def windows(n: int = 40, length: int = 32, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return (CENTRE[:, None] + SCALE[:, None] * rng.normal(size=(n, 3, length))).astype(np.float32)


def changed(kind: str, severity: float, x: NDArray[np.float32], seed: int = 7, **place: int) -> NDArray[np.float32]:
    return corrupt(x, kind, severity, SCALE, seed, **place, centre=CENTRE)


def deviation(x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return x about its centre in standard deviations."""
    units: NDArray[np.float64] = (x.astype(np.float64) - CENTRE[:, None]) / SCALE[:, None]
    return units


def rms(values: NDArray[np.floating]) -> float:
    return float(np.sqrt((values**2).mean()))


def test_the_halves_are_disjoint_and_complete_and_each_has_kinds_in_value_and_in_time() -> None:
    assert len(CORRUPTIONS) >= 14
    assert set(TUNING) | set(EVALUATION) == set(CORRUPTIONS)
    assert not set(TUNING) & set(EVALUATION)
    assert {"gain", "offset", "noise", "rotation"} <= set(TUNING)
    for half, mixtures in ((TUNING, TUNING_MIXTURES), (EVALUATION, EVALUATION_MIXTURES)):
        assert {KINDS[name].series for name in half} == {True, False}
        assert {part for name in mixtures for part in name.split("+")} <= set(half)
        assert any(applicable(name, 128, 1) for name in mixtures)
        assert all(mixture(name.split("+")) == name for name in mixtures)


@pytest.mark.parametrize("kind", ALL)
def test_a_stream_corrupted_in_pieces_equals_the_stream_corrupted_at_once(kind: str) -> None:
    x = windows(57)
    whole = changed(kind, 3.5, x, start=11, total=100)
    cuts = (0, 1, 2, 5, 13, 14, 40, 57)
    pieces = [changed(kind, 3.5, x[a:b], start=11 + a, total=100) for a, b in pairwise(cuts)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


@pytest.mark.parametrize("kind", ["noise", "spikes", "stuck_at", "missing_samples", "slow_drift"])
def test_a_stream_longer_than_one_internal_chunk_equals_its_pieces(kind: str) -> None:
    x = windows(6000)  # 576,000 values
    whole = changed(kind, 2, x)
    pieces = [changed(kind, 2, x[a:b], start=a, total=6000) for a, b in pairwise((0, 2999, 3000, 6000))]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


@pytest.mark.parametrize("kind", ALL)
def test_nothing_is_changed_at_severity_0_nor_in_the_caller_s_array(kind: str) -> None:
    x = windows()
    before = x.copy()
    same = changed(kind, 0, x)
    np.testing.assert_array_equal(same, x)
    assert not np.shares_memory(same, x)
    other = changed(kind, 5, x)
    np.testing.assert_array_equal(x, before)
    assert other.dtype == np.float32
    assert np.isfinite(other).all()
    assert not np.array_equal(other, x)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_higher_severity_never_changes_less(kind: str) -> None:
    # A smooth signal: on white noise a wrong clock is as wrong at 2 % as at 20 %.
    phase = np.linspace(0, 6, 40)[:, None, None] + np.array([0.0, 1.0, 2.0])[None, :, None]
    x = (CENTRE[:, None] + SCALE[:, None] * np.sin(phase + np.arange(32) / 5)).astype(np.float32)
    for seed in range(4):
        far = [rms(changed(kind, s, x, seed).astype(np.float64) - x) for s in (0, 0.5, 1, 1.5, 2, 3, 4, 5)]
        assert all(a <= b + 1e-9 for a, b in pairwise(far)), far
        assert far[-1] > far[2]


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_sizes_grow_and_are_interpolated(kind: str) -> None:
    sizes = [size_at(kind, severity) for severity in SEVERITIES]
    assert sizes == list(KINDS[kind].sizes)
    assert sizes == sorted(set(sizes))
    assert size_at(kind, 0.5) == pytest.approx(sizes[0] / 2)
    assert size_at(kind, 3.25) == pytest.approx(0.75 * sizes[2] + 0.25 * sizes[3])


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_equal_seeds_have_equal_draws_and_others_differ(kind: str) -> None:
    x = windows()
    np.testing.assert_array_equal(changed(kind, 3, x), changed(kind, 3, x))
    if kind not in ("band_limit", "saturation", "quantisation"):  # which draw nothing
        assert any(not np.array_equal(changed(kind, 3, x, seed=s), changed(kind, 3, x)) for s in (1, 2, 3, 4, 5))


def test_no_global_generator_is_touched() -> None:
    before = np.random.get_state()[1].tolist()  # type: ignore[index]
    for kind in ALL:
        changed(kind, 3, windows(3))
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index]


def test_a_gain_multiplies_about_the_centre_by_the_same_factor_in_every_window() -> None:
    x = windows()
    ratio = np.median(deviation(changed("gain", 4, x)) / deviation(x), axis=(0, 2))
    np.testing.assert_allclose(deviation(changed("gain", 4, x)), ratio[:, None] * deviation(x), atol=1e-4)
    assert rms(np.log(ratio)) == pytest.approx(0.5, rel=1e-3)


def test_an_offset_is_one_constant_per_channel_with_the_stated_root_mean_square() -> None:
    x = windows()
    step = deviation(changed("offset", 5, x)) - deviation(x)
    np.testing.assert_allclose(step, np.broadcast_to(step[:1, :, :1], step.shape), atol=1e-4)
    assert rms(step) == pytest.approx(2.0, rel=1e-4)


def test_slow_drift_grows_in_a_straight_line_over_the_whole_stream() -> None:
    x = windows()
    drift = (deviation(changed("slow_drift", 5, x, start=60, total=100)) - deviation(x)).mean(axis=2)  # (n, C)
    end = drift[-1] / 0.99
    assert rms(end) == pytest.approx(3.0, rel=1e-3)
    np.testing.assert_allclose(drift, np.outer((60 + np.arange(40)) / 100, end), atol=1e-4)
    np.testing.assert_array_equal(changed("slow_drift", 5, x[:1], total=100), x[:1])


def test_noise_is_white_gaussian_and_of_the_stated_size_in_each_channel() -> None:
    x = windows(2000)
    z = (deviation(changed("noise", 3, x)) - deviation(x)) / 0.4
    np.testing.assert_allclose(z.std(axis=(0, 2)), 1.0, atol=0.02)
    np.testing.assert_allclose(z.mean(axis=(0, 2)), 0.0, atol=0.02)
    np.testing.assert_allclose((z**4).mean(), 3.0, atol=0.1)
    np.testing.assert_allclose((z[:, :, 1:] * z[:, :, :-1]).mean(), 0.0, atol=0.01)  # in time
    np.testing.assert_allclose((z[1:] * z[:-1]).mean(), 0.0, atol=0.01)  # between windows
    np.testing.assert_allclose((z[:, 0] * z[:, 1]).mean(), 0.0, atol=0.02)  # between channels
    assert np.mean(np.abs(z) > 1.959964) == pytest.approx(0.05, abs=0.003)


def test_spikes_hit_the_stated_share_of_samples_with_4_to_8_standard_deviations() -> None:
    x = windows(2000)
    step = deviation(changed("spikes", 5, x)) - deviation(x)
    hit = np.abs(step) > 1e-4
    assert hit.mean() == pytest.approx(0.04, abs=0.002)
    heights = step[hit]
    assert np.abs(heights).min() > 4 - 1e-4
    assert np.abs(heights).max() < 8 + 1e-4
    assert (heights > 0).mean() == pytest.approx(0.5, abs=0.03)


def test_a_rotation_keeps_lengths_and_inner_products_and_turns_by_the_stated_angle() -> None:
    x = windows()
    before, after = (
        x.astype(np.float64) - CENTRE[:, None],
        changed("rotation", 3, x).astype(np.float64) - CENTRE[:, None],
    )
    flat_before, flat_after = (v.transpose(1, 0, 2).reshape(3, -1) for v in (before, after))
    matrix = flat_after @ np.linalg.pinv(flat_before)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-4)
    assert np.linalg.det(matrix) == pytest.approx(1.0, abs=1e-4)
    assert np.degrees(np.arccos((np.trace(matrix) - 1) / 2)) == pytest.approx(30.0, abs=0.01)
    np.testing.assert_allclose(matrix @ flat_before, flat_after, atol=1e-3)


def test_all_triples_of_a_device_turn_together() -> None:
    x = windows()
    six = np.concatenate([x, x], axis=1)
    turned = corrupt(six, "rotation", 2, np.tile(SCALE, 2), 7, centre=np.tile(CENTRE, 2))
    np.testing.assert_array_equal(turned[:, :3], turned[:, 3:])
    np.testing.assert_array_equal(turned[:, :3], changed("rotation", 2, x))


def test_a_wrong_clock_shifts_the_frequency_of_a_sine_by_the_stated_share() -> None:
    t = np.arange(200)
    x = np.sin(2 * np.pi * 0.04 * (t - 99.5) + 0.7)[None, None].astype(np.float32)
    errors = set()
    for seed in range(8):
        sampled = corrupt(x, "clock_error", 3, np.ones(1), seed)[0, 0]
        fits = {e: np.sin(2 * np.pi * 0.04 * (1 + e) * (t - 99.5) + 0.7) for e in (-0.05, 0.05)}
        error = min(fits, key=lambda e: float(np.abs(sampled - fits[e])[10:-10].max()))
        np.testing.assert_allclose(sampled[10:-10], fits[error][10:-10], atol=2e-3)
        errors.add(error)
    assert errors == {-0.05, 0.05}


def test_a_band_limit_attenuates_a_sine_as_two_rc_stages_do_and_leaves_a_constant() -> None:
    t = np.arange(4000)
    omega, share = 2 * np.pi / 20, 1 - np.exp(-1 / 2)
    x = (np.sin(omega * t) + 5)[None, None].astype(np.float32)
    limited = corrupt(x, "band_limit", 3, np.ones(1), 0)[0, 0, 100:]
    response = (share / (1 - (1 - share) * np.exp(-1j * omega))) ** 2
    assert rms(limited - 5.0) * np.sqrt(2) == pytest.approx(abs(response), rel=1e-3)
    constant = np.full((2, 3, 32), 7, dtype=np.float32)
    np.testing.assert_array_equal(changed("band_limit", 5, constant), constant)


def test_a_full_swap_exchanges_a_pair_and_leaves_the_odd_channel() -> None:
    x = windows()
    swapped = changed("channel_swap", 5, x)
    order = [next(b for b in range(3) if np.array_equal(swapped[:, a], x[:, b])) for a in range(3)]
    assert sorted(order) == [0, 1, 2]
    assert sum(a != b for a, b in enumerate(order)) == 2
    half = changed("channel_swap", 2.5, x)
    np.testing.assert_allclose(half, (x.astype(np.float64) + swapped) / 2, rtol=1e-5, atol=1e-4)


def test_severity_3_of_a_swap_exchanges_60_percent_of_the_pairs() -> None:
    x = np.random.default_rng(0).normal(size=(4, 20, 12)).astype(np.float32)
    swapped = corrupt(x, "channel_swap", 3, np.ones(20), 1)
    assert [np.array_equal(swapped[:, c], x[:, c]) for c in range(20)].count(False) == 12
    assert sorted(swapped[0, :, 0].tolist()) == sorted(x[0, :, 0].tolist())


def test_saturation_clips_at_half_the_range_about_the_centre() -> None:
    x = windows()
    expected = CENTRE[:, None] + SCALE[:, None] * np.clip(deviation(x), -1.5, 1.5)
    np.testing.assert_allclose(changed("saturation", 3, x), expected, rtol=1e-6)


def test_quantisation_leaves_only_multiples_of_its_step_and_errs_by_half_a_step() -> None:
    x = windows()
    steps = deviation(changed("quantisation", 4, x))
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)
    assert np.abs(steps - deviation(x)).max() <= 0.5 + 1e-4


def test_lost_channels_read_their_centre_and_the_last_one_in_part() -> None:
    x = np.random.default_rng(0).normal(size=(6, 4, 10)).astype(np.float32) + 3
    lost = corrupt(x, "channel_dropout", 4, np.ones(4), 2, centre=np.full(4, 3.0))  # 0.4 x 4 channels = 1.6
    kept = sorted(float(np.median((lost[:, c] - 3) / (x[:, c] - 3))) for c in range(4))
    assert kept == pytest.approx([0.0, 0.4, 1.0, 1.0], abs=1e-4)


def test_half_of_the_channels_stick_for_the_stated_share_at_a_value_they_had() -> None:
    x = windows(300)
    stuck = changed("stuck_at", 3, x)
    untouched = [c for c in range(3) if np.array_equal(stuck[:, c], x[:, c])]
    assert len(untouched) == 1
    for c in set(range(3)) - set(untouched):
        different = stuck[:, c] != x[:, c]
        assert different.sum(axis=1).tolist() == [16] * 300
        first = different.argmax(axis=1)
        for row in (0, 17, 299):
            begin = int(first[row])
            np.testing.assert_array_equal(stuck[row, c, begin : begin + 16], x[row, c, begin - 1])
        assert {1, 16} <= set(first.tolist())


def test_lost_packets_are_filled_with_the_last_sample_received() -> None:
    x = np.tile(np.arange(40, dtype=np.float32), (500, 2, 1))
    got = corrupt(x, "missing_samples", 5, np.ones(2), 3)
    np.testing.assert_array_equal(got[:, 0], got[:, 1])
    lost = 0
    for row in got[:, 0]:
        whole = [np.array_equal(row[p : p + 4], np.arange(p, p + 4)) for p in range(0, 40, 4)]
        assert any(whole)
        lost += whole.count(False)
        last = 4 * whole.index(True)  # what stands before the first packet that came
        for p, came in zip(range(0, 40, 4), whole, strict=True):
            if came:
                last = p + 3
            else:
                assert set(row[p : p + 4]) == {last}
    assert lost / 5000 == pytest.approx(0.5, abs=0.03)


def test_a_mixture_is_its_kinds_one_after_the_other_in_the_order_of_the_signal_chain() -> None:
    x = windows()
    by_hand = changed("quantisation", 2, changed("noise", 2, changed("gain", 2, x)))
    mixed = changed("quantisation+noise+gain", 2, x)
    difference = np.abs(deviation(mixed) - deviation(by_hand))
    assert (difference > 1e-3).mean() < 1e-3  # float32 between the kinds may round to the next step now and then
    np.testing.assert_array_equal(mixed, changed("gain+quantisation+noise", 2, x))
    assert mixture(["noise", "gain"]) == "gain+noise"


def test_tabular_rows_and_single_channels_work_or_are_refused_as_foretold() -> None:
    for channels, length in ((128, 1), (1, 64), (8, 52), (2, 9), (1, 1), (3, 8)):
        x = np.random.default_rng(1).normal(size=(5, channels, length)).astype(np.float32)
        for kind in ALL:
            if applicable(kind, channels, length):
                assert np.isfinite(corrupt(x, kind, 5, np.ones(channels), 0, total=50)).all()
            else:
                with pytest.raises(ConfigError, match=f"got windows of {channels} x {length}"):
                    corrupt(x, kind, 5, np.ones(channels), 0)
    assert {kind for kind in CORRUPTIONS if not applicable(kind, 128, 1)} == {
        "rotation",
        "clock_error",
        "band_limit",
        "stuck_at",
        "missing_samples",
    }
    assert {kind for kind in CORRUPTIONS if not applicable(kind, 1, 64)} == {
        "rotation",
        "channel_swap",
        "channel_dropout",
    }


def test_a_dead_channel_and_no_windows_at_all_are_no_trouble() -> None:
    dead = np.zeros((4, 3, 16), dtype=np.float32)
    for kind in ALL:
        assert np.isfinite(corrupt(dead, kind, 5, np.array([0.0, 1.0, 0.0]), 0)).all()
        assert corrupt(dead[:0], kind, 5, np.ones(3), 0).shape == (0, 3, 16)


def test_centre_and_scale_are_mean_and_deviation_in_double_precision() -> None:
    x = windows(200)
    centre, scale = centre_and_scale(x)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(centre, wide.mean(axis=(0, 2)), rtol=1e-12)
    np.testing.assert_allclose(scale, wide.std(axis=(0, 2)), rtol=1e-9)
    with pytest.raises(ConfigError, match="source windows"):
        centre_and_scale(x[:0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "wear"}, "'wear' is unknown"),
        ({"kind": ""}, "unknown"),
        ({"kind": "gain+gain"}, "comes twice"),
        ({"severity": 5.1}, "severity of 0"),
        ({"severity": -1}, "severity of 0"),
        ({"severity": float("nan")}, "severity of 0"),
        ({"scale": np.ones(2)}, "one finite scale per channel"),
        ({"scale": np.array([1.0, -1.0, 1.0])}, "standard deviations from 0"),
        ({"centre": np.array([0.0, np.nan, 0.0])}, "one finite centre per channel"),
        ({"seed": -1}, "seed and start from 0"),
        ({"start": -1}, "seed and start from 0"),
        ({"start": 5, "total": 8}, "go beyond it"),
        ({"windows": np.zeros((4, 3), np.float32)}, "shape \\(n, channels, length\\)"),
    ],
)
def test_wrong_arguments_are_refused_with_what_was_expected(arguments: dict[str, object], message: str) -> None:
    given = {"windows": windows(4), "kind": "gain", "severity": 1, "scale": SCALE, "seed": 0, **arguments}
    with pytest.raises(ConfigError, match=message):
        corrupt(**given)  # type: ignore[arg-type]
