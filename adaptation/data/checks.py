"""Refuse what a selection of recordings cannot mean: arrays of another form, wrong labels, shared rows, ties.

Everywhere a `ConfigError` says that an option does not fit the file, and a `DataError` that the file's content is
wrong; both name the first row or value that is at fault.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.adaptation.data.dataset import Split
from acclimate.adaptation.data.selectors import Selector, summarise_values
from acclimate.adaptation.errors import ConfigError, DataError

__all__ = [
    "check_channels",
    "check_key",
    "check_label_range",
    "check_label_type",
    "check_source_classes",
    "check_target_classes",
    "check_windows",
    "refuse_overlap",
    "refuse_single_rows",
    "refuse_ties",
]

_MAX_CLASSES = 1000


def check_windows(path: Path, stored: NDArray[Any]) -> NDArray[Any]:
    """Give the windows as (n, channels, length), still in the stored type."""
    if stored.dtype.kind not in "fiu" or stored.ndim not in (2, 3) or 0 in stored.shape:
        raise DataError(
            f"{path}: X must be real numbers of shape (n, channels, length) or (n, features), "
            f"found {stored.dtype} of shape {stored.shape}",
            "wrong_shape",
        )
    return stored[:, :, None] if stored.ndim == 2 else stored


def check_key(path: Path, name: str, array: NDArray[np.generic], rows: int) -> NDArray[np.generic]:
    """Return a key as it is stored: one number or text per window."""
    if array.shape != (rows,) or array.dtype.kind not in "iufbUS":
        raise DataError(
            f"{path}: array {name!r} must hold one number or text for each of the {rows} rows of X, "
            f"found {array.dtype} of shape {array.shape}",
            "wrong_shape",
        )
    return array


def check_label_type(path: Path, label: str, array: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return the labels (n,) as integers."""
    if array.dtype.kind not in "iu":
        raise DataError(
            f"{path}: label {label!r} must be integers 0..K-1 (-1 leaves a row out), found {array.dtype}; "
            "choose another array with --label",
            "wrong_label_type",
        )
    return array.astype(np.int64)


def check_label_range(path: Path, label: str, labels: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
    """Refuse labels of these rows that are neither a class nor -1."""
    bad = rows[(labels[rows] < -1) | (labels[rows] >= _MAX_CLASSES)]
    if bad.size:
        raise DataError(
            f"{path}: label {label!r} is {labels[bad[0]]} in row {bad[0]} ({bad.size} such rows); labels are 0..K-1, "
            f"or -1 to leave a row out, and K is at most {_MAX_CLASSES}",
            "label_out_of_range",
        )


def check_channels(option: str, chosen: Sequence[int] | None, available: int) -> tuple[int, ...]:
    """Return the channels to use, in order: those that ``option`` names, or all that are available."""
    if chosen is None:
        return tuple(range(available))
    bad = [channel for channel in chosen if not 0 <= channel < available]
    if bad or not chosen:
        found = f"got {bad[0]}" if bad else "got none"
        raise ConfigError(f"{option}: the file has channels 0 to {available - 1}, {found}")
    if len(set(chosen)) != len(chosen):
        raise ConfigError(f"{option}: a channel comes twice in {','.join(map(str, chosen))}")
    return tuple(chosen)


def refuse_overlap(
    source_rows: NDArray[np.int64], target_rows: NDArray[np.int64], source: Selector, target: Selector | None
) -> None:
    """Refuse rows that are in the source and in the target."""
    shared = np.intersect1d(source_rows, target_rows)
    if shared.size:
        raise ConfigError(
            f"--source {str(source)!r} and --target {str(target)!r} share {shared.size} rows (first: row {shared[0]}); "
            "a target must be new to the model. Only with other channels (--target-channels) may rows be used twice"
        )


def refuse_ties(
    side: str, keys: dict[str, NDArray[np.generic]], kept: NDArray[np.int64], group_key: str, order: Sequence[str]
) -> None:
    """Refuse order keys that leave the order of two neighbours in a group open; ``kept`` are the sorted rows."""
    tied = np.ones(kept.size - 1, dtype=np.bool_)
    for name in (group_key, *order):
        values = keys[name][kept]
        tied &= values[1:] == values[:-1]
    if tied.any():
        first = int(np.flatnonzero(tied)[0])
        raise ConfigError(
            f"--order {','.join(order)} does not decide the order of the {side}: rows {kept[first]} and "
            f"{kept[first + 1]} of {group_key}={keys[group_key][kept[first]]} are tied ({int(tied.sum())} ties); "
            "add a key, or leave --order away to use the stored order"
        )


def check_source_classes(label: str, labels: NDArray[np.int64]) -> int:
    """Return the number of classes; the labels (n,) of the source must hold each of them from 0 without gaps."""
    present = np.unique(labels)
    classes = int(present[-1]) + 1
    if classes < 2:
        raise ConfigError(f"the source holds one class only ({label}=0); a classifier needs at least two")
    if present.size != classes:
        absent = np.setdiff1d(np.arange(classes), present)
        raise ConfigError(
            f"the source has labels {summarise_values(present)} but none of {summarise_values(absent)}; "
            f"classes must run from 0 without gaps: select more source rows or another --label than {label!r}"
        )
    return classes


def check_target_classes(label: str, target: Split, classes: int) -> None:
    """Refuse a target with classes that the source never shows."""
    unseen = np.unique(target.labels[target.labels >= classes])
    if unseen.size:
        raise ConfigError(
            f"the target has {label}={summarise_values(unseen)}, which the source (labels 0-{classes - 1}) never "
            "shows; select source rows of that class or leave those target rows away"
        )


def refuse_single_rows(group_key: str, target: Split) -> None:
    """Refuse a group key that makes each window a stream of its own."""
    # A selector may well use a row number; a fleet of thousands of devices with one window each is not what is meant.
    count = sum(1 for _ in target.streams())
    if count > 1 and count == len(target):
        raise ConfigError(
            f"group key {group_key!r} makes {count} streams of one window each; name the devices' key with --group"
        )
