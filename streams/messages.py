"""What travels in Kafka record values: pydantic models at the edge, JSON Schemas exported to ``docs/schemas``.

Evolution rules: new fields have defaults, a type never changes, a name is never reused; readers ignore fields they do
not know. ``schema_version`` rises only when an old reader would misread a new record.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "DEVICE_PATTERN",
    "SCHEMA_VERSION",
    "WINDOWS_PER_RECORD_MAX",
    "Crash",
    "FeatureRecord",
    "Output",
    "PredictionRecord",
    "Receipt",
    "Shift",
    "WindowPrediction",
    "Windows",
    "WorkerStatus",
    "event_id",
]

SCHEMA_VERSION = 1
DEVICE_PATTERN = r"^[A-Za-z0-9._-]{1,64}$"
# Bounds the size of a prediction, which is larger than its input where windows are small.
WINDOWS_PER_RECORD_MAX = 256

DeviceId = Annotated[str, Field(pattern=DEVICE_PATTERN)]
SessionId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Sequence = Annotated[int, Field(ge=0, lt=2**53)]
EventTime = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def event_id(device: str, session: str, seq: int) -> str:
    """Return the name of one window, never reused.

    >>> event_id("pump-7", "00ff00ff00ff00ff", 12)
    'pump-7/00ff00ff00ff00ff/12'
    """
    return f"{device}/{session}/{seq}"


class Message(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class Windows(Message):
    """Windows of one record.

    ``shape`` is (windows, channels, length); ``data`` is base64 of little-endian float32 in C order, or the same
    numbers as a flat list.
    """

    shape: Annotated[list[Annotated[int, Field(ge=1, le=2**31)]], Field(min_length=3, max_length=3)]
    data: str | list[float]


class FeatureRecord(Message):
    """Topic ``.features``: consecutive windows of one device session, the first one numbered ``seq``.

    ``event_times_ms`` holds one time per window, milliseconds since 1970 by the device's clock.
    """

    schema_version: Literal[1]
    device: DeviceId
    session: SessionId
    seq: Sequence
    event_times_ms: Annotated[list[EventTime], Field(min_length=1, max_length=WINDOWS_PER_RECORD_MAX)]
    windows: Windows


class Output(Message):
    """What one model says about one window; ``probabilities`` in class order, ``label`` the index of the largest."""

    label: int
    probabilities: list[float]


class Shift(Message):
    """How far a window lies from the source: uncapped; each part is divided by its 0.99
    quantile on held-out source windows.

    ``magnitude`` is the larger of ``mean`` and ``variance``; the lists hold the two parts of every BatchNorm layer.
    """

    magnitude: float
    mean: float
    variance: float
    layers_mean: list[float]
    layers_variance: list[float]


class WindowPrediction(Message):
    """One window's entry: a pure function of the event and of what the receipt names.

    ``distance`` and ``gain`` are LeanTTA's d and a for every BatchNorm layer. ``adapted`` and both are None where the
    method does not apply (rows without a time axis).
    """

    event_id: str
    event_time_ms: int
    input_digest: Digest
    answered_by: Literal["source", "leantta"]
    label: int
    class_name: str
    source: Output
    adapted: Output | None
    shift: Shift
    distance: list[float] | None
    gain: list[float] | None
    flags: list[Literal["event_time_implausible"]]


class Receipt(Message):
    """All that an output depends on besides the event itself."""

    bundle: Digest
    adapter: Digest | None
    epoch: int
    mode: Literal["observe", "always"]
    config: Digest
    code_contract_version: int
    engine: str
    instruction_set: str


class PredictionRecord(Message):
    """Topic ``.predictions``: the answer to one record of ``.features``; equal ``output_id`` means equal bytes."""

    schema_version: Literal[1]
    output_id: Digest
    device: DeviceId
    session: SessionId
    seq: Sequence
    windows: list[WindowPrediction]
    receipt: Receipt


class WorkerStatus(Message):
    """Topic ``.status``, key ``worker/NAME``: what a worker really runs; it leaves a tombstone when it stops.

    ``receipt`` is of the stable bundle, ``candidate`` of the one that devices of the wave in progress get. ``refusals``
    counts, by reason, releases that were not taken since the start; ``last_refusal`` says what was wrong.
    """

    schema_version: Literal[1]
    receipt: Receipt
    candidate: Receipt | None = None
    since_ms: int | None = None
    refusals: dict[str, int] = Field(default_factory=dict)
    last_refusal: str | None = None


class Crash(Message):
    """Topic ``.status``, key ``crash/TOPIC/PARTITION``: a bug met at one offset; the third one parks the record."""

    schema_version: Literal[1]
    offset: int
    count: int
    error: str
