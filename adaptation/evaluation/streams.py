"""The streams that every method meets in the same order: recorded, reordered, or with a sensor going wrong.

A stream belongs to one device (group) and its one state; only `mixed` gives all devices one state.

    ordered     as recorded: one class for a long time
    shuffled    a permutation inside the group
    mixed       all groups in one stream, interleaved at random, each in its recorded order
    skewed      ten blocks in time; each class is dealt over them by Dirichlet(0.1), one run per class and block, after
                the streams of NOTE (Gong et al., NeurIPS 2022) and RoTTA (Yuan et al., CVPR 2023)
    sparse      as recorded, but only every tenth window arrives
    gradual     a corruption grows from severity 0 to 5 along the stream
    abrupt      clean for the first half, then severity 3
    spike       three bursts at severity 5, together 2 to 5 % of the windows
    recurring   a clean third, a third at severity 3, a clean third again (what was forgotten shows there)

The corruption of the last four is drawn per seed and group from the evaluation half of
`acclimate.adaptation.data.corruptions` and its mixtures, which no training, tuning or calibration of this project uses;
one group has one fault in all streams of a seed. Labels order `skewed` and are handed on for scoring; a method is not
given them.
"""

import zlib
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from acclimate.adaptation.data.corruptions import EVALUATION, EVALUATION_MIXTURES, applicable, corrupt
from acclimate.adaptation.data.dataset import Split
from acclimate.adaptation.errors import ConfigError

__all__ = ["CORRUPTED", "SEVERITIES", "STREAMS", "Stream", "every", "make_stream", "stream_members"]

SEVERITIES = {"gradual": 5.0, "abrupt": 3.0, "spike": 5.0, "recurring": 3.0}
CORRUPTED = tuple(SEVERITIES)
STREAMS = ("ordered", "shuffled", "mixed", *CORRUPTED, "sparse", "skewed")

_SPARSE = 10
_BLOCKS = 10
_CONCENTRATION = 0.1
_BURSTS = 3
_SEVERITY_STEPS = 50  # of gradual: windows of one step are corrupted in one call


@dataclass(frozen=True, eq=False)
class Stream:
    """Windows as they arrive, and what only the scoring may know of them.

    Attributes:
        windows: (n, C, L) float32, raw.
        labels: (n,) int64.
        groups: Names of the devices in it.
        member: (n,) int64, index into ``groups``.
        row: (n,) int64, where each window stands in the recording (`Split`): within a group, the order of time. Errors
            depend on one another in this order, whatever the stream's.
        severity: (n,) float32, the severity of the corruption, 0 without one.
        corruption: The kind of corruption, or None.
        returned: (n,) bool, clean again after a corrupted stretch (recurring only).
    """

    windows: NDArray[np.float32]
    labels: NDArray[np.int64]
    groups: tuple[str, ...]
    member: NDArray[np.int64]
    row: NDArray[np.int64]
    severity: NDArray[np.float32]
    corruption: str | None
    returned: NDArray[np.bool_]

    def __len__(self) -> int:
        return int(self.labels.shape[0])


def stream_members(split: Split, kind: str) -> list[tuple[str, ...]]:
    """Return the groups of each stream of this kind: all in one for ``mixed``, else one each.

    Raises:
        ConfigError: The kind is unknown.
    """
    _check_kind(kind)
    names = tuple(name for name, _ in split.streams())
    return [names] if kind == "mixed" else [(name,) for name in names]


def make_stream(
    split: Split,
    groups: tuple[str, ...],
    kind: str,
    seed: int,
    centre: NDArray[np.float64],
    scale: NDArray[np.float64],
    severity: float | None = None,
) -> Stream:
    """Make one stream; equal arguments give equal streams.

    Args:
        split: Recorded windows.
        groups: Devices in the stream, as `stream_members` gives them.
        kind: One of `STREAMS`.
        seed: The seed of order and corruption, together with the group's name.
        centre, scale: (C,) of the source's raw values, see `acclimate.adaptation.data.corruptions.centre_and_scale`.
        severity: Above 0 to 5, instead of the stream's own (`SEVERITIES`); without effect on uncorrupted streams.

    Raises:
        ConfigError: The kind or a group is unknown, the severity is out of range, or no corruption fits windows of this
            shape.
    """
    _check_kind(kind)
    slices = dict(split.streams())
    unknown = [name for name in groups if name not in slices]
    if unknown or not groups:
        raise ConfigError(f"groups: expected some of {', '.join(slices)}, got {unknown[0] if unknown else 'none'}")
    rows = [np.arange(slices[name].start, slices[name].stop) for name in groups]
    member = np.repeat(np.arange(len(groups)), [len(part) for part in rows])
    row = np.concatenate(rows)
    rng = np.random.default_rng([seed, zlib.crc32("/".join(groups).encode()), zlib.crc32(kind.encode())])
    if kind == "mixed":
        # A random sequence of devices; the windows of each keep their order.
        order = np.empty(len(row), dtype=np.int64)
        shuffled = rng.permutation(member)
        order[np.argsort(shuffled, kind="stable")] = np.arange(len(row))
        member, row = shuffled, row[order]
    elif kind == "shuffled":
        row = rng.permutation(row)
    elif kind == "skewed":
        row = row[_skewed(split.labels[row], rng)]
    elif kind == "sparse":
        row, member = row[::_SPARSE], member[::_SPARSE]
    windows = split.windows[row]
    levels = np.zeros(len(row), dtype=np.float32)
    returned = np.zeros(len(row), dtype=np.bool_)
    corruption = None
    if kind in CORRUPTED:
        corruption, corruption_seed = _draw_corruption(groups[0], seed, *windows.shape[1:])
        levels = _severities(kind, len(row), SEVERITIES[kind] if severity is None else severity, rng)
        windows = _corrupted(windows, corruption, levels, centre, scale, corruption_seed)
        if kind == "recurring":
            returned[2 * len(row) // 3 :] = True
    return Stream(windows, split.labels[row], groups, member, row, levels, corruption, returned)


def every(split: Split, stride: int) -> Split:
    """Keep every ``stride``-th window of each group, the first included: a quick look, not a result.

    Raises:
        ConfigError: The stride is below 1.
    """
    if stride < 1:
        raise ConfigError(f"stride: expected at least 1, got {stride}")
    kept = np.concatenate([np.arange(part.start, part.stop, stride) for _, part in split.streams()])
    return Split(split.windows[kept], split.labels[kept], split.groups[kept], split.rows[kept], split.dropped)


def _check_kind(kind: str) -> None:
    if kind not in STREAMS:
        raise ConfigError(f"stream {kind!r} is unknown; choose from {', '.join(STREAMS)}")


def _skewed(labels: NDArray[np.int64], rng: Generator) -> NDArray[np.int64]:
    """Return an order in which classes come in runs, as indices into ``labels``."""
    parts: list[list[NDArray[np.int64]]] = [[] for _ in range(_BLOCKS)]
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        cuts = np.cumsum(rng.dirichlet(np.full(_BLOCKS, _CONCENTRATION)))[:-1]
        for block, part in zip(parts, np.split(mine, np.rint(cuts * len(mine)).astype(np.int64)), strict=True):
            block.append(part)
    return np.concatenate([block[index] for block in parts for index in rng.permutation(len(block))])


def _draw_corruption(group: str, seed: int, channels: int, length: int) -> tuple[str, int]:
    """Return a kind that windows of this shape can have, and the seed of the device's own draw."""
    kinds = [kind for kind in (*EVALUATION, *EVALUATION_MIXTURES) if applicable(kind, channels, length)]
    if not kinds:
        raise ConfigError(
            f"no corruption of the evaluation set fits windows of {channels} channels and {length} samples; "
            f"leave the streams {', '.join(CORRUPTED)} away"
        )
    rng = np.random.default_rng([seed, zlib.crc32(group.encode()), 7])  # one device, one fault, in all streams
    return kinds[int(rng.integers(len(kinds)))], int(rng.integers(2**31))


def _severities(kind: str, count: int, severity: float, rng: Generator) -> NDArray[np.float32]:
    if not 0.0 < severity <= 5.0:
        raise ConfigError(f"severity: expected above 0 to 5, got {severity}")
    levels = np.zeros(count)
    if kind == "gradual":
        levels = severity * np.rint(np.linspace(0, 1, count) * _SEVERITY_STEPS) / _SEVERITY_STEPS
    elif kind == "abrupt":
        levels[count // 2 :] = severity
    elif kind == "recurring":
        levels[count // 3 : 2 * count // 3] = severity
    else:
        length = max(1, round(rng.uniform(0.02, 0.05) * count / _BURSTS))
        for part in np.array_split(np.arange(count), _BURSTS):  # one burst in each third, so that none overlap
            if len(part):
                first = part[0] + int(rng.integers(max(1, len(part) - length + 1)))
                levels[first : min(first + length, part[-1] + 1)] = severity
    return levels.astype(np.float32)


def _corrupted(
    windows: NDArray[np.float32],
    kind: str,
    levels: NDArray[np.float32],
    centre: NDArray[np.float64],
    scale: NDArray[np.float64],
    seed: int,
) -> NDArray[np.float32]:
    changes = np.flatnonzero(np.diff(levels)) + 1
    bounds = [0, *changes.tolist(), len(windows)]
    parts = []
    for start, stop in pairwise(bounds):
        part = windows[start:stop]
        if len(part) and levels[start] > 0:
            level, total = float(levels[start]), len(windows)
            part = corrupt(part, kind, level, scale, seed, start, total, centre=centre)
        parts.append(part)
    return np.concatenate(parts)
