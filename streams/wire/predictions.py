"""Read ``.predictions``: one reader for all who count answers, so that they agree on what an answer is.

Version 1 had an object per window. Its records are read for ever, as the columns that version 2 has.
"""

from collections import defaultdict
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from acclimate.streams.wire.messages import (
    DeviceId,
    Digest,
    Message,
    Name,
    PredictionRecord,
    Receipt,
    Sequence,
    SessionId,
)

__all__ = ["answered_probabilities", "parse_prediction"]


class OutputV1(Message):
    """What one model says about one window; ``probabilities`` in class order, ``label`` the index of the largest."""

    label: int
    probabilities: list[float]


class ShiftV1(Message):
    """How far a window lies from the source."""

    magnitude: float
    mean: float
    variance: float
    layers_mean: list[float]
    layers_variance: list[float]


class WindowV1(Message):
    """One window's entry; ``adapted``, ``distance`` and ``gain`` are None where the method does not apply."""

    event_id: str
    event_time_ms: int
    input_digest: Digest
    answered_by: Name
    label: int
    class_name: str
    source: OutputV1
    adapted: OutputV1 | None
    shift: ShiftV1
    distance: list[float] | None
    gain: list[float] | None
    flags: list[Name]


class PredictionRecordV1(Message):
    """Topic ``.predictions``, as code contract version 1 wrote it."""

    schema_version: Literal[1]
    output_id: Digest
    device: DeviceId
    session: SessionId
    seq: Sequence
    windows: list[WindowV1]
    receipt: Receipt


_ANY_VERSION: TypeAdapter[PredictionRecord | PredictionRecordV1] = TypeAdapter(
    Annotated[PredictionRecord | PredictionRecordV1, Field(discriminator="schema_version")]
)


def parse_prediction(value: bytes | None) -> PredictionRecord | None:
    """Return the prediction in a record's value; None where it is none: any client of the broker may write noise.

    Of version 1 it is the same columns; a class that answered none of its windows is named by its number there.
    """
    try:
        record = _ANY_VERSION.validate_json(value or b"")
        return record if isinstance(record, PredictionRecord) else _columns(record)
    except ValidationError:
        return None


def answered_probabilities(record: PredictionRecord) -> list[list[float]]:
    """Return the probabilities (n, classes) of the output that answered each window."""
    source, adapted = record.source.probabilities, (record.adapted or record.source).probabilities
    return [source[i] if rung == "source" else adapted[i] for i, rung in enumerate(record.answered_by)]


def _columns(record: PredictionRecordV1) -> PredictionRecord:
    """Return the columns of a record of version 1.

    Raises:
        ValidationError: They do not fit each other.
    """
    windows = record.windows
    names = {window.label: window.class_name for window in windows}
    classes = max((len(window.source.probabilities) for window in windows), default=0)
    adapted = _output([window.adapted for window in windows])
    flags = defaultdict(list)
    for i, window in enumerate(windows):
        for flag in window.flags:
            flags[flag].append(i)
    return PredictionRecord.model_validate(
        {
            "schema_version": 2,
            "output_id": record.output_id,
            "device": record.device,
            "session": record.session,
            "seq": record.seq,
            "event_times_ms": [window.event_time_ms for window in windows],
            "input_digests": [window.input_digest for window in windows],
            "answered_by": [window.answered_by for window in windows],
            "labels": [window.label for window in windows],
            "class_names": [names.get(label, str(label)) for label in range(classes)],
            "source": _output([window.source for window in windows]),
            "adapted": adapted,
            "adapted_by": None if adapted is None else "leantta",
            "shift": {name: [getattr(window.shift, name) for window in windows] for name in ShiftV1.model_fields},
            "distance": _given([window.distance for window in windows]),
            "gain": _given([window.gain for window in windows]),
            "flags": dict(flags),
            "receipt": record.receipt,
        }
    )


def _output(outputs: list[OutputV1 | None]) -> dict[str, Any] | None:
    given = _given(outputs)
    if given is None:
        return None
    return {"labels": [output.label for output in given], "probabilities": [output.probabilities for output in given]}


def _given(values: list[Any]) -> list[Any] | None:
    """Return the values that are there, None without any; some without others are too few for a column."""
    return [value for value in values if value is not None] or None
