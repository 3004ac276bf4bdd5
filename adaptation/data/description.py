"""Names and units from the JSON file that may lie beside recordings.

Only what fits is taken: a list of names whose number is wrong describes other arrays of the file, not the chosen ones.
"""

import json
from pathlib import Path
from typing import Any

from acclimate.adaptation.errors import DataError

__all__ = [
    "channel_names",
    "class_names",
    "read_description",
    "sampling_rate_hz",
    "step_samples",
    "unsafe_augmentations",
]

_MAX_DESCRIPTION_BYTES = 10 * 2**20


def read_description(path: Path) -> dict[str, Any]:
    """Read the JSON beside the recordings; an absent file is an empty description.

    Raises:
        DataError: The file is not JSON, or larger than 10 MiB.
    """
    if not path.is_file():
        return {}
    if path.stat().st_size > _MAX_DESCRIPTION_BYTES:
        raise DataError(
            f"{path} is larger than {_MAX_DESCRIPTION_BYTES} bytes; expected a short description", "too_large"
        )
    try:
        described = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}; repair it or move it away", "bad_json") from error
    return described if isinstance(described, dict) else {}


def _texts(value: object) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, list) and all(isinstance(entry, str) for entry in value) else ()


def channel_names(described: dict[str, Any], available: int, chosen: tuple[int, ...]) -> tuple[str, ...]:
    """Name the chosen channels.

    >>> channel_names({"channels": ["x", "y", "z"]}, 3, (2, 0))
    ('z', 'x')
    """
    names = _texts(described.get("channels"))
    if len(names) != available:
        names = tuple(f"channel {number}" for number in range(available))
    return tuple(names[channel] for channel in chosen)


def class_names(described: dict[str, Any], label: str, classes: int) -> tuple[str, ...]:
    """Name the classes; a coarser label has names of its own (``<label>_names``) or is numbered.

    >>> class_names({"class_names": ["ball", "race"]}, "y", 2), class_names({"class_names": ["ball", "race"]}, "y", 3)
    (('ball', 'race'), ('0', '1', '2'))
    """
    for key in (f"{label}_names", "class_names"):
        names = _texts(described.get(key))
        if len(names) == classes:
            return names
    return tuple(str(number) for number in range(classes))


def sampling_rate_hz(described: dict[str, Any]) -> float | None:
    """Give the sampling rate where the description has one as a number.

    >>> sampling_rate_hz({"sampling_rate": 52}), sampling_rate_hz({"sampling_rate": "1 per hour"})
    (52.0, None)
    """
    rate = described.get("sampling_rate")
    usable = isinstance(rate, (int, float)) and not isinstance(rate, bool) and 0 < rate < 1e9
    return float(rate) if usable and rate is not None else None


def step_samples(described: dict[str, Any], length: int) -> int | None:
    """Give the samples from one window to the next (``window.stride``) where windows of this length are described.

    >>> step_samples({"window": {"length": 104, "stride": 52}}, 104), step_samples({"window": {"stride": 52}}, 104)
    (52, None)
    """
    window = described.get("window")
    step = window.get("stride") if isinstance(window, dict) and window.get("length") == length else None
    return step if isinstance(step, int) and not isinstance(step, bool) and 0 < step < 2**31 else None


def unsafe_augmentations(described: dict[str, Any]) -> tuple[str, ...]:
    """Name the changes of a window that the task forbids, see `acclimate.adaptation.alignment.views`.

    >>> unsafe_augmentations({"unsafe_augmentations": ["gain"]}), unsafe_augmentations({})
    (('gain',), ())
    """
    return _texts(described.get("unsafe_augmentations"))
