"""Choose a detector's threshold from its own reference: one false alarm in so many windows, by moving-block bootstrap.

Textbook thresholds assume independent Gaussian scores; real ones have heavy tails and remember. A replicate is made of
blocks of the reference scores, drawn with replacement at any position, so what happens inside a block (bursts, slow
waves) stays as it was. It runs through the whole detector, prewhitening included. For a threshold h

    (1) rate(h) = alarms / windows at risk = #{first passages of h within T} / sum_r min(passage_r, T),   T = 1/target

and h is where rate(h) = target. One pass gives the first passages of every h, because the running maximum of the
statistic does not depend on h. Moving blocks: Künsch, "The jackknife and the bootstrap for general stationary
observations", Annals of Statistics 17, 1989.

Where two blocks meet, (2) of `cusum` sees a jump that no device made, with blocks of 50 one score in fifty; measured,
it moves h by 6 % at most. Only blocks of the reference can be drawn: waves longer than a block, or a device unlike
all in the reference, raise alarms beyond the target. The target also lies beyond what a few thousand windows
can tell; docs/drift.md shows what that does on data that is new indeed.

RECONSTRUCTED: block length 50. Longer blocks keep longer waves, but then hold the largest excursion of the reference as
a whole; every draw of it peaks at the same height, rate(h) jumps there and no h meets the target (at 200: 0.7 instead
of 1). 1000 replicates make the rate known to about 4 %.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from acclimate.adaptation.drift.cusum import Cusum, ScoreReference
from acclimate.adaptation.errors import ConfigError, DataError

__all__ = ["BLOCK", "fit_threshold", "resample", "residuals_of"]

BLOCK = 50
_RECORD_EVERY = 10

Float64 = NDArray[np.float64]


def resample(
    streams: Sequence[Float64], replicates: int, rng: np.random.Generator, block: int = BLOCK
) -> Iterator[Float64]:
    """Yield without end the next block (block, replicates) of every replicate: time runs down, replicates across.

    Args:
        streams: Reference scores, one array (n,) per device in stream order; no block crosses from one to the next.
        replicates: Streams to make side by side, at least 1.
        rng: The generator that draws the positions.
        block: Windows of a block, at least 1; a stream shorter than two blocks gives blocks of half its length. Raising
            it keeps slower waves, and leaves fewer different blocks.

    Raises:
        ConfigError: ``replicates`` or ``block`` is below 1.
        DataError: No score is given, or one is not finite.
    """
    if replicates < 1 or block < 1:
        raise ConfigError(
            f"bootstrap: expected at least 1 replicate and blocks of at least 1, got {replicates}, {block}"
        )
    arrays = [np.asarray(stream, dtype=np.float64) for stream in streams if len(stream)]
    if not arrays:
        raise DataError("bootstrap: expected reference scores, got none", "empty")
    pool = np.concatenate(arrays)
    if not np.isfinite(pool).all():
        raise DataError("bootstrap: expected finite reference scores, got NaN or infinity", "not_finite")
    length = max(1, min(block, max(array.size for array in arrays) // 2))
    ends = np.cumsum([array.size for array in arrays])
    starts = np.concatenate(
        [np.arange(end - array.size, end - length + 1) for array, end in zip(arrays, ends, strict=True)]
    )
    return _blocks(pool, starts, length, replicates, rng)


def residuals_of(reference: ScoreReference, chunks: Iterator[Float64]) -> Iterator[Float64]:
    """Yield the prewhitened residuals (block, replicates) of chunks of scores that follow one another in time."""
    last: Float64 | None = None
    for chunk in chunks:
        x = reference.standardise(chunk)
        residuals = reference.prewhiten(x if last is None else np.concatenate([last, x]))
        yield residuals if last is None else residuals[1:]
        last = x[-1:]


def fit_threshold(
    reference: ScoreReference,
    streams: Sequence[Float64],
    rng: np.random.Generator,
    *,
    windows_per_alarm: int = 10_000,
    slack: float = 0.25,
    block: int = BLOCK,
    replicates: int = 1000,
    least: float = 1.0,
) -> Cusum:
    """Return the detector that raises one false alarm in ``windows_per_alarm`` windows of resampled reference.

    Takes about a second for 10,000 windows, in proportion.

    Args:
        reference: Fitted to the same streams.
        streams: Reference scores, one array (n,) per device in stream order.
        rng: The generator of the bootstrap.
        windows_per_alarm: Mean windows between false alarms, at least 100. Raising it raises the threshold.
        slack: k of the detector.
        block: The length of the bootstrap's blocks, in windows.
        replicates: Streams; raising it makes the threshold more exact and takes longer.
        least: Lowest threshold to return, above 0. Raising it guards against a reference that is too short or too calm.

    Raises:
        ConfigError: A setting is out of range.
        DataError: No score is given, or one is not finite.
    """
    if windows_per_alarm < 100:
        raise ConfigError(f"windows per alarm: expected at least 100, got {windows_per_alarm}")
    lowest = Cusum(reference, least, slack)
    chunks = residuals_of(reference, resample(streams, replicates, rng, block))
    peaks = _running_maxima(chunks, windows_per_alarm, slack)  # (T / 10, R)

    def alarms_and_windows(threshold: float) -> tuple[int, float]:
        late = (peaks <= threshold).sum(axis=0)  # (R,) first record beyond h, in units of ten windows
        return int((late < len(peaks)).sum()), float(np.minimum((late + 0.5) * _RECORD_EVERY, windows_per_alarm).sum())

    low, high = least, max(least, float(peaks.max()))
    for _ in range(40):  # halving: 40 times is beyond float noise for any threshold
        middle = (low + high) / 2
        alarms, windows = alarms_and_windows(middle)
        low, high = (middle, high) if alarms * windows_per_alarm > windows else (low, middle)  # (1)
    return replace(lowest, threshold=high)


def _running_maxima(chunks: Iterator[Float64], windows: int, slack: float) -> Float64:
    """Return the largest statistic so far at every tenth window, without resets: (windows / 10, replicates)."""
    records: list[Float64] = []
    upper = lower = peak = np.zeros(1)
    step = 0
    for chunk in chunks:
        rises, falls = chunk - slack, -chunk - slack
        for rise, fall in zip(rises, falls, strict=True):
            upper, lower = np.maximum(upper + rise, 0.0), np.maximum(lower + fall, 0.0)  # (3) of cusum
            peak = np.maximum(peak, np.maximum(upper, lower))
            step += 1
            if step % _RECORD_EVERY == 0:
                records.append(peak)
            if step >= windows:
                return np.stack(records)
    raise AssertionError("resample has no end")


def _blocks(
    pool: Float64, starts: NDArray[np.int64], length: int, replicates: int, rng: np.random.Generator
) -> Iterator[Float64]:
    offsets = np.arange(length)[:, None]
    while True:
        yield pool[starts[rng.integers(starts.size, size=replicates)] + offsets]  # (length, R)
