"""The sensor corruptions, each a change of a signal; `acclimate.adaptation.data.corruptions` names, seeds and mixes
them.

Every function takes raw windows x of shape (n, C, L) in float64, a `size` in the unit of its kind and a `Place`, and
returns new windows. s is the source's standard deviation of a channel, c what the channel reads at zero input, d a
direction over channels drawn once per device, with root mean square 1, u and z uniform and standard normal numbers
drawn per window, t the sample in 0..L-1.

    (1) rotation         c + R (x - c) per triple of channels, one R per device          size: degrees
    (2) clock_error      x((L-1)/2 + (t - (L-1)/2) (1 + e)), e = ±size per device        size: share of the rate
    (3) band_limit       two stages y_t = y_(t-1) + (1 - exp(-1/size)) (x_t - y_(t-1))   size: samples
    (4) gain             c + exp(size d) (x - c)                                         size: log of the gain
    (5) offset           x + size s d                                                    size: s
    (6) slow_drift       x + size s d (position in the stream, 0 to 1)                   size: s at the stream's end
    (7) noise            x + size s z                                                    size: s
    (8) spikes           x ± (4 to 8) s where u < size                                   size: share of samples
    (9) channel_swap     (1 - w) x_a + w x_b and the reverse; sum of w = size pairs      size: share of pairs
    (10) saturation      clip(x, c - s / size, c + s / size)                             size: s / half the range
    (11) quantisation    c + q round((x - c) / q), q = size s                            size: s
    (12) channel_dropout c + (1 - w) (x - c); the w sum to size C channels               size: share of channels
    (13) stuck_at        x_(t0) for t0 < t <= t0 + size L, in half of the channels       size: share of the window
    (14) missing_samples the last sample received, where packets of 4 samples are lost   size: share of packets

The forms are textbook models of sensor faults; which numbers stand for a severity is RECONSTRUCTED, that is our guess
of what is faint, plain and gross, and no paper's table. Everything is elementwise in the window axis, without BLAS or
FFT, so that windows corrupted in pieces equal windows corrupted at once bit by bit.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

__all__ = [
    "PACKET",
    "Apply",
    "Place",
    "band_limit",
    "channel_dropout",
    "channel_swap",
    "clock_error",
    "gain",
    "missing_samples",
    "noise",
    "offset",
    "quantisation",
    "rotation",
    "saturation",
    "slow_drift",
    "spikes",
    "stuck_at",
]

Float64 = NDArray[np.float64]

PACKET = 4  # samples that a lost packet takes with it
_SPIKE_LEAST, _SPIKE_RANGE = 4.0, 4.0  # a spike is 4 to 8 source standard deviations high


@dataclass(frozen=True, eq=False)
class Place:
    """The place of windows in their stream, and the random numbers there.

    Attributes:
        scale: Source standard deviation per channel, raw units, (C, 1).
        centre: Reading at zero input per channel, raw units, (C, 1).
        position: Place of each window in its stream, 0 to below 1, (n, 1, 1).
        device: Fresh generator that depends on seed and kind alone: equal draws for every window of a device.
        uniforms: A function that gives (n, count) numbers in 0..1, by seed, kind and each window's index in the stream.
    """

    scale: Float64
    centre: Float64
    position: Float64
    device: Generator
    uniforms: Callable[[int], Float64]


Apply = Callable[[Float64, float, Place], Float64]


def rotation(x: Float64, size: float, place: Place) -> Float64:
    """Turn every triple of axes by ``size`` degrees about one axis of the device: the sensor was mounted anew. (1)"""
    axis = place.device.standard_normal(3)
    axis /= math.sqrt(float(axis @ axis))
    angle = math.radians(size)
    cross = np.array([[0.0, -axis[2], axis[1]], [axis[2], 0.0, -axis[0]], [-axis[1], axis[0], 0.0]])
    matrix = np.eye(3) + math.sin(angle) * cross + (1.0 - math.cos(angle)) * (cross @ cross)  # Rodrigues
    triples = (x - place.centre).reshape(len(x), -1, 3, x.shape[2])  # (n, C / 3, 3, L)
    turned = np.empty_like(triples)
    for row in range(3):
        turned[:, :, row] = (
            matrix[row, 0] * triples[:, :, 0] + matrix[row, 1] * triples[:, :, 1] + matrix[row, 2] * triples[:, :, 2]
        )
    return place.centre + turned.reshape(x.shape)


def clock_error(x: Float64, size: float, place: Place) -> Float64:
    """Sample with a clock that is off by the share ``size``, too fast or too slow, about the window's middle. (2)

    Between samples the signal is a Catmull-Rom cubic; beyond a window's ends, which nobody recorded, its mirror image.
    """
    last = x.shape[2] - 1
    error = size if place.device.random() < 0.5 else -size
    at = last / 2 + (np.arange(x.shape[2]) - last / 2) * (1.0 + error)  # (L,)
    below = np.floor(at).astype(np.int64)
    f = at - below
    weights = (
        f * (-0.5 + f * (1.0 - 0.5 * f)),
        1.0 + f * f * (1.5 * f - 2.5),
        f * (0.5 + f * (2.0 - 1.5 * f)),
        f * f * (0.5 * f - 0.5),
    )
    sampled = np.zeros_like(x)
    for step, weight in zip((-1, 0, 1, 2), weights, strict=True):
        sampled += weight * x[:, :, last - np.abs(last - np.abs(below + step))]
    return sampled


def band_limit(x: Float64, size: float, _place: Place) -> Float64:
    """Pass the signal through two RC stages of time constant ``size`` samples: soft mounting, a heavier filter. (3)

    The filter has settled on the first sample of each window, because what came before it is not known.
    """
    share = 1.0 - math.exp(-1.0 / size)
    first = second = x[:, :, 0]
    limited = np.empty_like(x)
    for t in range(x.shape[2]):
        first = first + share * (x[:, :, t] - first)
        second = second + share * (first - second)
        limited[:, :, t] = second
    return limited


def gain(x: Float64, size: float, place: Place) -> Float64:
    """Multiply each channel's deviation from its centre: tolerance and ageing of sensitivity. (4)"""
    return place.centre + np.exp(size * _direction(place)) * (x - place.centre)


def offset(x: Float64, size: float, place: Place) -> Float64:
    """Add a constant to each channel: zero error. (5)"""
    return x + size * place.scale * _direction(place)


def slow_drift(x: Float64, size: float, place: Place) -> Float64:
    """Let the zero of each channel wander off in a straight line over the whole stream. (6)"""
    return x + size * place.position * (place.scale * _direction(place))


def noise(x: Float64, size: float, place: Place) -> Float64:
    """Add white Gaussian noise. (7)"""
    count = x.shape[1] * x.shape[2]
    pairs = (count + 1) // 2
    u = place.uniforms(2 * pairs)
    # Box and Muller: unlike a rejection sampler it takes the same count of uniforms for every window.
    radius = np.sqrt(-2.0 * np.log(1.0 - np.ascontiguousarray(u[:, :pairs])))
    angle = 2.0 * np.pi * np.ascontiguousarray(u[:, pairs:])
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :count]
    noisy: Float64 = x + size * place.scale * normal.reshape(x.shape)
    return noisy


def spikes(x: Float64, size: float, place: Place) -> Float64:
    """Add single-sample impulses of either sign: electrical interference, a bad contact. (8)"""
    count = x.shape[1] * x.shape[2]
    u = place.uniforms(2 * count)
    signed = 2.0 * u[:, count:] - 1.0
    height = np.sign(signed) * (_SPIKE_LEAST + _SPIKE_RANGE * np.abs(signed))
    return x + place.scale * np.where(u[:, :count] < size, height, 0.0).reshape(x.shape)


def channel_swap(x: Float64, size: float, place: Place) -> Float64:
    """Exchange the share ``size`` of channel pairs; the last pair, where a part is left, by crosstalk. (9)"""
    pairs = place.device.permutation(x.shape[1])[: x.shape[1] // 2 * 2].reshape(-1, 2)
    swapped = x.copy()
    for (a, b), weight in zip(pairs, _shares(size, len(pairs)), strict=True):
        swapped[:, a] = (1.0 - weight) * x[:, a] + weight * x[:, b]
        swapped[:, b] = (1.0 - weight) * x[:, b] + weight * x[:, a]
    return swapped


def saturation(x: Float64, size: float, place: Place) -> Float64:
    """Clip at ``1 / size`` source standard deviations from the centre: too small a range. (10)"""
    half_range = place.scale / size
    clipped: Float64 = np.clip(x, place.centre - half_range, place.centre + half_range)
    return clipped


def quantisation(x: Float64, size: float, place: Place) -> Float64:
    """Round to steps of ``size`` source standard deviations: too few bits for the range. (11)"""
    step = np.where(place.scale > 0.0, size * place.scale, 1.0)
    rounded = place.centre + step * np.round((x - place.centre) / step)
    return np.where(place.scale > 0.0, rounded, x)


def channel_dropout(x: Float64, size: float, place: Place) -> Float64:
    """Lose the share ``size`` of channels, which then read their centre; the last one, in part, is attenuated. (12)"""
    weight = np.empty((x.shape[1], 1))
    weight[place.device.permutation(x.shape[1]), 0] = _shares(size, x.shape[1])
    return np.where(weight > 0.0, place.centre + (1.0 - weight) * (x - place.centre), x)


def stuck_at(x: Float64, size: float, place: Place) -> Float64:
    """Freeze half of the channels (rounded up) for one stretch of each window, at the stretch's first value. (13)"""
    channels, length = x.shape[1:]
    frozen = place.device.permutation(channels)[: (channels + 1) // 2]
    held = min(round(size * length), length - 1)
    begin = np.floor(place.uniforms(1) * (length - held)).astype(np.int64)  # (n, 1)
    t = np.arange(length)
    source = np.where((t >= begin) & (t <= begin + held), begin, t)  # (n, L)
    stuck = x.copy()
    stuck[:, frozen] = np.take_along_axis(x[:, frozen], source[:, None, :], axis=2)
    return stuck


def missing_samples(x: Float64, size: float, place: Place) -> Float64:
    """Lose packets of all channels; the receiver repeats the last sample it has, at first the first that comes. (14)"""
    length = x.shape[2]
    u = place.uniforms(-(-length // PACKET))
    received = u >= size
    received[np.arange(len(u)), u.argmax(axis=1)] = True  # a window of which nothing came would not be a window
    t = np.arange(length)
    latest = np.maximum.accumulate(np.where(np.repeat(received, PACKET, axis=1)[:, :length], t, -1), axis=1)
    source = np.where(latest < 0, received.argmax(axis=1)[:, None] * PACKET, latest)  # (n, L)
    return np.take_along_axis(x, source[:, None, :], axis=2)


def _direction(place: Place) -> Float64:
    """Draw one number per channel with root mean square 1, (C, 1): a severity is equally far for every device."""
    d = place.device.standard_normal(place.scale.shape)
    return d / math.sqrt(float((d * d).mean()))


def _shares(size: float, count: int) -> Float64:
    """Deal ``size`` times count among count members: whole ones first, then a part, then none.

    >>> _shares(0.5, 3).tolist()
    [1.0, 0.5, 0.0]
    """
    shares: Float64 = np.clip(size * count - np.arange(count), 0.0, 1.0)
    return shares
