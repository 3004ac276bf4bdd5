"""Read recorded windows, split into a labelled source and a time-ordered target.

One loader serves training, the fleet player, the demo and the benchmarks, so that all of them mean the same rows by
the same options.

Rules that the numbers of this project depend on:

- a stream is one group; its order is the stored row order, or ``order`` keys, and then ties are refused, because a tie
  means that the key restarts (a time within a segment) and the order would be an accident;
- label -1 means "left out on purpose": such rows are dropped and counted; other labels must be classes of the source;
- source and target may share rows only when they use different channels (one machine, two sensors).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from acclimate.adaptation.data.checks import (
    check_channels,
    check_key,
    check_label_range,
    check_label_type,
    check_source_classes,
    check_target_classes,
    check_windows,
    refuse_overlap,
    refuse_single_rows,
    refuse_ties,
)
from acclimate.adaptation.data.dataset import Dataset, Split, Transform
from acclimate.adaptation.data.description import (
    channel_names,
    class_names,
    read_description,
    sampling_rate_hz,
    step_samples,
    unsafe_augmentations,
)
from acclimate.adaptation.data.npz_file import array_names, read_arrays
from acclimate.adaptation.data.selectors import Selector, match_rows, parse_selector
from acclimate.adaptation.errors import ConfigError, DataError

__all__ = ["load", "load_labelled"]


def load(
    path: Path | str,
    *,
    source: str,
    target: str | None = None,
    label: str = "y",
    group: str | None = None,
    channels: Sequence[int] | None = None,
    target_channels: Sequence[int] | None = None,
    transform: str = "none",
    order: Sequence[str] = (),
) -> Dataset:
    """Load a source and a target from an npz file with windows ``X``, labels and keys.

    Args:
        path: File with ``X`` of shape (n, channels, length), or (n, features), which becomes (n, features, 1); a JSON
            file beside it may give ``channels``, ``class_names`` (or ``<label>_names``), ``sampling_rate`` in Hz,
            ``window`` with ``length`` and ``stride`` in samples, and ``unsafe_augmentations``.
        source: Selector of the rows to train on, see `acclimate.adaptation.data.selectors`.
        target: Selector of the rows to stream.
        label: Integer array with the classes; the source must hold each of 0..K-1, -1 leaves a row out.
        group: Key whose values are the devices; the first key of ``target``, else of ``source``, when not given.
        channels: Channels to use, in this order; all when not given.
        target_channels: Channels of the target, as many as ``channels``, when another sensor takes over.
        transform: ``none`` or ``signedlog`` (sign(x) log(1 + |x|)), applied inside the network.
        order: Keys to sort each group by, most significant first.

    Raises:
        ConfigError: An option does not fit the file; the text lists what the file has.
        DataError: The file's content is wrong: damaged, not finite, labels that cannot be classes.
    """
    path = Path(path)
    if transform not in get_args(Transform):
        raise ConfigError(f"--transform {transform!r} is unknown; choose one of {', '.join(get_args(Transform))}")
    source_selector = parse_selector(source)
    target_selector = parse_selector(target) if target is not None else None
    if target_selector is None and target_channels is not None:
        raise ConfigError("--target-channels needs --target: there are no target rows to apply it to")
    group_key = group or (target_selector or source_selector).key

    used = {label, group_key, *order, *_keys_of(source_selector), *_keys_of(target_selector)}
    windows, keys, labels = _read(path, label, used)

    source_channels = check_channels("--channels", channels, windows.shape[1])
    streamed_channels = source_channels
    if target_channels is not None:
        streamed_channels = check_channels("--target-channels", target_channels, windows.shape[1])
        if len(streamed_channels) != len(source_channels):
            raise ConfigError(
                f"--target-channels names {len(streamed_channels)} channels, the source has {len(source_channels)}; "
                "the network needs the same number"
            )
    source_rows = match_rows(source_selector, keys)
    target_rows = match_rows(target_selector, keys) if target_selector else None
    if target_rows is not None and not set(source_channels).isdisjoint(streamed_channels):
        refuse_overlap(source_rows, target_rows, source_selector, target_selector)

    for rows in (source_rows, target_rows):
        if rows is not None:
            check_label_range(path, label, labels, rows)
    source_split = _split(path, "source", windows, labels, keys, source_rows, source_channels, group_key, order)
    classes = check_source_classes(label, source_split.labels)
    target_split = None
    if target_rows is not None:
        target_split = _split(path, "target", windows, labels, keys, target_rows, streamed_channels, group_key, order)
        check_target_classes(label, target_split, classes)
        if group is None:
            refuse_single_rows(group_key, target_split)
    described = read_description(path.with_suffix(".json"))
    selection = {
        "label": label,
        "source": str(source_selector),
        "target": str(target_selector) if target_selector else "",
        "group": group_key,
        "channels": ",".join(map(str, source_channels)),
        "target_channels": ",".join(map(str, streamed_channels)) if target_selector else "",
        "order": ",".join(order),
    }
    return Dataset(
        name=path.stem,
        source=source_split,
        target=target_split,
        channel_names=channel_names(described, windows.shape[1], source_channels),
        class_names=class_names(described, label, classes),
        transform="signedlog" if transform == "signedlog" else "none",
        group_key=group_key,
        sampling_rate_hz=sampling_rate_hz(described),
        step_samples=step_samples(described, windows.shape[2]),
        selection=selection,
        unsafe_augmentations=unsafe_augmentations(described),
    )


def load_labelled(
    path: Path | str,
    *,
    where: str | None = None,
    label: str = "y",
    group: str | None = None,
    channels: Sequence[int] | None = None,
    order: Sequence[str] = (),
    apart_from: Sequence[str] = (),
) -> Split:
    """Load rows to judge a model on: labelled as for `load`, but not every class needs to occur.

    Args:
        path, label, channels, order: The same as for `load`.
        where: Selector of the rows; all when not given.
        group: Key whose values are the devices; the first key of ``where`` when not given, else one group.
        apart_from: Selectors of rows that must not be among them: those that the model was trained on.

    Raises:
        ConfigError: An option does not fit the file, or rows are shared.
        DataError: The file's content is wrong.
    """
    path = Path(path)
    selector = parse_selector(where) if where else None
    known = [parse_selector(text) for text in apart_from]
    group_key = group or (selector.key if selector else None)
    used = {label, *order, *([group_key] if group_key else [])}
    used |= {key for each in (selector, *known) for key in _keys_of(each)}
    windows, keys, labels = _read(path, label, used)
    rows = match_rows(selector, keys) if selector else np.arange(len(windows))
    for each in known:
        shared = np.intersect1d(rows, match_rows(each, keys))
        if shared.size:
            raise ConfigError(
                f"{path}: {shared.size} of the {rows.size} rows (first: row {shared[0]}) are among {str(each)!r}, "
                "which the model was trained on; select rows that are new to it"
            )
    check_label_range(path, label, labels, rows)
    if group_key is None:
        group_key = "all"
        keys = {**keys, group_key: np.full(len(windows), "all")}
    chosen = check_channels("--channels", channels, windows.shape[1])
    return _split(path, "validation set", windows, labels, keys, rows, chosen, group_key, order)


def _read(
    path: Path, label: str, used: set[str]
) -> tuple[NDArray[Any], dict[str, NDArray[np.generic]], NDArray[np.int64]]:
    """Return windows, keys by name, and labels of a file."""
    names = array_names(path)
    if "X" in used:
        raise ConfigError("X holds the windows; it is no label, group, order or selection key")
    missing = sorted(({"X"} | used) - set(names))
    if missing:
        raise ConfigError(f"{path} has no array {missing[0]!r}; it has: {', '.join(sorted(names)) or 'none'}")
    arrays = read_arrays(path, sorted({"X"} | used))
    windows = check_windows(path, arrays["X"])
    keys = {name: check_key(path, name, array, len(windows)) for name, array in arrays.items() if name != "X"}
    return windows, keys, check_label_type(path, label, keys[label])


def _keys_of(selector: Selector | None) -> tuple[str, ...]:
    return tuple(condition.key for condition in selector.conditions) if selector else ()


def _split(
    path: Path,
    side: str,
    windows: NDArray[Any],
    labels: NDArray[np.int64],
    keys: dict[str, NDArray[np.generic]],
    rows: NDArray[np.int64],
    channels: tuple[int, ...],
    group_key: str,
    order: Sequence[str],
) -> Split:
    kept = rows[labels[rows] >= 0]
    if kept.size == 0:
        raise ConfigError(
            f"the {side} selects {rows.size} rows and all of them have label -1 (left out); select others"
        )
    _, position = np.unique(keys[group_key][kept], return_inverse=True)
    for name in order:
        if keys[name].dtype.kind == "f" and not np.isfinite(keys[name][kept].astype(np.float64)).all():
            raise DataError(f"{path}: order key {name!r} is not finite in some of the {side}'s rows", "not_finite")
    # The last key of lexsort is the most significant one; equal keys keep the stored order.
    sequence = np.lexsort((*(keys[name][kept] for name in reversed(order)), position))
    kept = kept[sequence]
    if order:
        refuse_ties(side, keys, kept, group_key, order)
    with np.errstate(over="ignore"):
        chosen = np.ascontiguousarray(windows[kept][:, list(channels)], dtype=np.float32)  # (n, C, L)
    broken = np.flatnonzero(~np.isfinite(chosen).all(axis=(1, 2)))
    if broken.size:
        raise DataError(
            f"{path}: {broken.size} of the {side}'s windows hold NaN, infinity or values beyond float32; "
            f"first rows: {', '.join(map(str, kept[broken[:5]]))}",
            "not_finite",
        )
    return Split(
        windows=chosen,
        labels=labels[kept],
        groups=keys[group_key][kept].astype(np.str_),
        rows=kept,
        dropped=int(rows.size - kept.size),
    )
