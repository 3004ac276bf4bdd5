"""Sensor corruptions of five severities: the simulator that methods are tuned on and, with other kinds, judged on.

    corrupt(windows, "gain+noise", severity=3, scale=scale, seed=7, centre=centre)

A device is a seed. What belongs to the device (gain per channel, axis of a rotation, which channels are swapped)
depends on seed and kind alone; what belongs to a window (noise, lost packets) on seed, kind and the window's index in
its stream. So a stream corrupted in pieces, given ``start`` and ``total``, equals the stream corrupted at once bit by
bit, and a higher severity is the same accident, only worse. Numbers come from a counter-based generator (Philox) set to
the window's place, which needs no generator per window.

The kinds are cut in two halves. Whatever is chosen, trained or meta-trained uses `TUNING`; figures that are to show
protection use `EVALUATION`. `TUNING` holds gain, offset, noise and rotation because robust source models train with
them. The halves are disjoint as kinds, not in nature: slow drift (evaluation) is an offset (tuning) that grows.

Severity 1 is faint and 5 gross; between and below whole numbers sizes are interpolated, and 0 changes nothing. Sizes
count in the source's standard deviations wherever a raw unit would mean something else on every sensor.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator, Philox, SeedSequence
from numpy.typing import NDArray

from acclimate.adaptation.data import corruption_kinds as kinds
from acclimate.adaptation.data.corruption_kinds import Apply, Float64, Place
from acclimate.adaptation.errors import ConfigError

__all__ = [
    "CORRUPTIONS",
    "EVALUATION",
    "EVALUATION_MIXTURES",
    "KINDS",
    "SEVERITIES",
    "TUNING",
    "TUNING_MIXTURES",
    "Kind",
    "applicable",
    "centre_and_scale",
    "corrupt",
    "mixture",
    "size_at",
]

SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Kind:
    """One kind of corruption.

    Attributes:
        apply: The change; see `acclimate.adaptation.data.corruption_kinds`.
        sizes: Size at severities 1 to 5.
        unit: The unit of the sizes.
        tuning: Whether it is in the half for tuning.
        least_channels: Fewest channels that it makes sense for.
        triples: Whether channels must come in threes.
        series: Whether it needs windows of more than 8 samples.
    """

    apply: Apply
    sizes: tuple[float, float, float, float, float]
    unit: str
    tuning: bool
    least_channels: int = 1
    triples: bool = False
    series: bool = False


# In the order of the signal's way through a device: mounting, clock, filter, amplifier, cable, converter, bus, radio.
# A mixture applies its kinds in this order, because a converter rounds the noise and not the noise the converter.
KINDS: dict[str, Kind] = {
    "rotation": Kind(kinds.rotation, (5, 15, 30, 60, 90), "degrees", True, 3, triples=True),
    "clock_error": Kind(kinds.clock_error, (0.01, 0.02, 0.05, 0.1, 0.2), "share of the rate", False, series=True),
    "band_limit": Kind(kinds.band_limit, (0.5, 1, 2, 4, 8), "samples (time constant)", True, series=True),
    "gain": Kind(kinds.gain, (0.1, 0.2, 0.35, 0.5, 0.7), "log of the gain, rms over channels", True),
    "offset": Kind(kinds.offset, (0.25, 0.5, 1, 1.5, 2), "source std, rms over channels", True),
    "slow_drift": Kind(kinds.slow_drift, (0.5, 1, 1.5, 2, 3), "source std at the stream's end, rms", False),
    "noise": Kind(kinds.noise, (0.1, 0.2, 0.4, 0.7, 1), "source std", True),
    "spikes": Kind(kinds.spikes, (0.002, 0.005, 0.01, 0.02, 0.04), "share of samples", False),
    "channel_swap": Kind(kinds.channel_swap, (0.2, 0.4, 0.6, 0.8, 1), "share of channel pairs", False, 2),
    "saturation": Kind(kinds.saturation, (1 / 3, 0.5, 2 / 3, 1, 5 / 3), "source std / half the range", False),
    "quantisation": Kind(kinds.quantisation, (0.1, 0.25, 0.5, 1, 2), "source std per step", True),
    "channel_dropout": Kind(kinds.channel_dropout, (0.1, 0.2, 0.3, 0.4, 0.6), "share of channels", False, 2),
    "stuck_at": Kind(kinds.stuck_at, (0.15, 0.3, 0.5, 0.7, 0.9), "share of the window", False, series=True),
    "missing_samples": Kind(
        kinds.missing_samples, (0.05, 0.1, 0.2, 0.35, 0.5), "share of packets of 4 samples", True, series=True
    ),
}

CORRUPTIONS: tuple[str, ...] = tuple(KINDS)
TUNING: tuple[str, ...] = tuple(name for name, kind in KINDS.items() if kind.tuning)
EVALUATION: tuple[str, ...] = tuple(name for name, kind in KINDS.items() if not kind.tuning)
TUNING_MIXTURES: tuple[str, ...] = (
    "gain+offset+noise",
    "rotation+offset+noise",
    "gain+quantisation",
    "band_limit+noise+missing_samples",
)
EVALUATION_MIXTURES: tuple[str, ...] = (
    "slow_drift+spikes",
    "slow_drift+saturation",
    "channel_swap+channel_dropout",
    "clock_error+spikes+stuck_at",
)

_SHORTEST_SERIES = 9
_CHUNK_VALUES = 1 << 18  # values at a time: keeps temporary arrays in the cache


def mixture(names: Iterable[str]) -> str:
    """Give the name of a mixture, its kinds in the order in which they are applied.

    Raises:
        ConfigError: A kind is unknown or comes twice, or no kind is given.

    >>> mixture(["quantisation", "gain"])
    'gain+quantisation'
    """
    return "+".join(_parts("+".join(names)))


def applicable(kind: str, channels: int, length: int) -> bool:
    """Tell whether a kind, or every part of a mixture, makes sense for windows (channels, length).

    Rotation needs channels in threes, swapped or lost channels at least two, and what acts along time more than 8
    samples.

    Raises:
        ConfigError: The kind is unknown.

    >>> applicable("rotation", 3, 104), applicable("rotation", 8, 52), applicable("gain+clock_error", 128, 1)
    (True, False, False)
    """
    return all(_obstacle(name, channels, length) is None for name in _parts(kind))


def size_at(kind: str, severity: float) -> float:
    """Give a single kind's size at a severity, in its unit.

    Raises:
        ConfigError: The kind is unknown or a mixture, or the severity is not in 0..5.

    >>> size_at("noise", 3), round(size_at("noise", 0.5), 3), size_at("noise", 0)
    (0.4, 0.05, 0.0)
    """
    if kind not in KINDS:
        raise ConfigError(f"corruption {kind!r} is unknown; choose one of {', '.join(CORRUPTIONS)}")
    if not 0 <= severity <= 5:
        raise ConfigError(f"expected a severity of 0 (unchanged) to 5 (gross), got {severity}")
    return float(np.interp(severity, (0, *SEVERITIES), (0.0, *KINDS[kind].sizes)))


def centre_and_scale(source_windows: NDArray[np.float32]) -> tuple[Float64, Float64]:
    """Give mean and standard deviation of each channel, (C,) each: `corrupt`'s ``centre`` and ``scale``.

    Args:
        source_windows: (n, C, L), raw, of the source; at least one window.

    Raises:
        ConfigError: No window is given, or they have another shape.
    """
    if source_windows.ndim != 3 or source_windows.size == 0:
        raise ConfigError(f"expected source windows of shape (n, channels, length), got {source_windows.shape}")
    mean = source_windows.mean(axis=(0, 2), dtype=np.float64)
    return mean, source_windows.std(axis=(0, 2), dtype=np.float64)


def corrupt(
    windows: NDArray[np.float32],
    kind: str,
    severity: float,
    scale: NDArray[np.floating],
    seed: int,
    start: int = 0,
    total: int | None = None,
    *,
    centre: NDArray[np.floating] | None = None,
) -> NDArray[np.float32]:
    """Corrupt a stretch of one device's stream; the given array is left as it is.

    Args:
        windows: (n, C, L), raw units, finite, in stream order.
        kind: One of `CORRUPTIONS`, or several joined by ``+``; a mixture gives each part the same severity.
        severity: 0 to 5, fractions allowed; 0 changes nothing, higher is worse.
        scale: Standard deviation of each channel over the source, (C,), raw units, from 0; see `centre_and_scale`.
        seed: The device, from 0; equal seeds have equal draws.
        start: Index in the device's stream of the first window given.
        total: Windows in the whole stream, which slow drift is spread over; start + n when not given.
        centre: The reading of each channel at zero input, (C,), raw units; gain, rotation, saturation, quantisation and
            dropout act about it. 0 when not given, which is right for calibrated sensors only: where raw values are
            far from 0 (counts of a converter), give the source mean, or a gain of 10 % shifts a window by many
            standard deviations.

    Returns:
        (n, C, L) float32.

    Raises:
        ConfigError: The kind is unknown or does not apply to such windows, or an argument is out of range.

    >>> import numpy as np
    >>> x = np.arange(12, dtype=np.float32).reshape(2, 1, 6)
    >>> whole = corrupt(x, "offset+noise", 2.5, np.ones(1), seed=3)
    >>> bool((corrupt(x[1:], "offset+noise", 2.5, np.ones(1), seed=3, start=1) == whole[1:]).all())
    True
    """
    names = _parts(kind)
    sizes = [size_at(name, severity) for name in names]
    centre = np.zeros_like(scale) if centre is None else centre
    _check(windows, names, scale, centre, seed, start, total)
    total = start + len(windows) if total is None else total
    corrupted = np.empty(windows.shape, dtype=np.float32)
    chunk = max(1, _CHUNK_VALUES // max(1, windows.shape[1] * windows.shape[2]))
    for first in range(0, len(windows), chunk):
        x = windows[first : first + chunk].astype(np.float64)
        for name, size in zip(names, sizes, strict=True):
            if size > 0.0:
                place = _place(name, len(x), scale, centre, seed, start + first, total)
                x = KINDS[name].apply(x, size, place)
        corrupted[first : first + chunk] = x
    return corrupted


def _place(
    name: str,
    n: int,
    scale: NDArray[np.floating],
    centre: NDArray[np.floating],
    seed: int,
    start: int,
    total: int,
) -> Place:
    letters = tuple(name.encode())  # so that a new kind never changes the draws of the others

    def uniforms(count: int) -> Float64:
        # Philox gives four numbers per step of its counter, so each window begins at a multiple of four.
        steps = -(-count // 4)
        bits = Philox(SeedSequence([seed, 1, *letters]))
        bits.advance(start * steps)
        return Generator(bits).random((n, 4 * steps))[:, :count]

    return Place(
        scale=scale.astype(np.float64)[:, None],
        centre=centre.astype(np.float64)[:, None],
        position=((start + np.arange(n)) / total)[:, None, None],
        device=Generator(Philox(SeedSequence([seed, 0, *letters]))),
        uniforms=uniforms,
    )


def _parts(kind: str) -> list[str]:
    names = kind.split("+")
    unknown = [name for name in names if name not in KINDS]
    if unknown:
        raise ConfigError(
            f"corruption {unknown[0]!r} is unknown; choose of {', '.join(CORRUPTIONS)}, or several joined by '+'"
        )
    if len(set(names)) < len(names):
        raise ConfigError(f"a kind comes twice in the mixture {kind!r}; name each once and raise the severity")
    return [name for name in KINDS if name in names]


def _obstacle(name: str, channels: int, length: int) -> str | None:
    kind = KINDS[name]
    if channels < kind.least_channels:
        return f"at least {kind.least_channels} channels"
    if kind.triples and channels % 3:
        return "channels in threes, one per axis"
    if kind.series and length < _SHORTEST_SERIES:
        return f"windows of at least {_SHORTEST_SERIES} samples"
    return None


def _check(
    windows: NDArray[np.float32],
    names: list[str],
    scale: NDArray[np.floating],
    centre: NDArray[np.floating],
    seed: int,
    start: int,
    total: int | None,
) -> None:
    if windows.ndim != 3:
        raise ConfigError(f"expected windows of shape (n, channels, length), got {windows.shape}")
    _, channels, length = windows.shape
    for name in names:
        obstacle = _obstacle(name, channels, length)
        if obstacle is not None:
            raise ConfigError(f"corruption {name} needs {obstacle}, got windows of {channels} x {length}")
    for what, values in (("scale", scale), ("centre", centre)):
        if values.shape != (channels,) or not np.isfinite(values).all():
            raise ConfigError(f"expected one finite {what} per channel, {channels} in all, got {values!r}")
    if (scale < 0).any():
        raise ConfigError(f"expected standard deviations from 0 as scale, got {scale!r}")
    if seed < 0 or start < 0:
        raise ConfigError(f"expected seed and start from 0, got seed {seed} and start {start}")
    if total is not None and total < max(1, start + len(windows)):
        raise ConfigError(f"the stream has {total} windows in all, {len(windows)} from number {start} go beyond it")
