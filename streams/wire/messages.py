"""What travels in Kafka record values: pydantic models at the edge, JSON Schemas exported to ``docs/schemas``.

Evolution rules: new fields have defaults, a type never changes, a name is never reused; readers ignore fields they do
not know. ``schema_version`` rises only when an old reader would misread a new record.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from acclimate.registry.releases.mode import Mode

__all__ = [
    "DEVICE_PATTERN",
    "RATE_HZ_MAX",
    "SCHEMA_VERSION",
    "STEP_SAMPLES_MAX",
    "WINDOWS_PER_RECORD_MAX",
    "ControllerStatus",
    "CrashMark",
    "DeviceStatus",
    "EdgeCounts",
    "FeatureRecord",
    "Output",
    "PredictionRecord",
    "Receipt",
    "Shift",
    "WindowPrediction",
    "WindowRequest",
    "Windows",
    "WorkerStatus",
    "event_id",
]

SCHEMA_VERSION = 1
DEVICE_PATTERN = r"^[A-Za-z0-9._-]{1,64}$"
# Bounds the size of a prediction, which is larger than its input where windows are small.
WINDOWS_PER_RECORD_MAX = 256
RATE_HZ_MAX = 1e9
STEP_SAMPLES_MAX = 2**31

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

    Also topic ``.windows``, where a device that answers itself uploads some; nobody answers those again.
    ``event_times_ms`` holds one time per window, milliseconds since 1970 by the device's clock.
    ``sampling_rate_hz`` is the rate of the samples in a window, ``step_samples`` counts samples from the start of one
    window to the start of the next; None where the device does not say.
    """

    schema_version: Literal[1]
    device: DeviceId
    session: SessionId
    seq: Sequence
    event_times_ms: Annotated[list[EventTime], Field(min_length=1, max_length=WINDOWS_PER_RECORD_MAX)]
    windows: Windows
    sampling_rate_hz: Annotated[float, Field(gt=0, le=RATE_HZ_MAX, allow_inf_nan=False)] | None = None
    step_samples: Annotated[int, Field(ge=1, le=STEP_SAMPLES_MAX)] | None = None


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
    """One window's entry: a pure function of the event's record and of what the receipt names.

    ``distance`` and ``gain`` are LeanTTA's d and a for every BatchNorm layer. ``adapted`` and both are None where the
    method does not apply (rows without a time axis). ``sampling_rate_implausible`` is in ``flags`` of all windows of a
    record that names no rate, where its event times contradict the model's.
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
    flags: list[Literal["event_time_implausible", "sampling_rate_implausible"]]


class Receipt(Message):
    """All that an output depends on besides the event itself."""

    bundle: Digest
    adapter: Digest | None
    epoch: int
    mode: Mode
    config: Digest
    code_contract_version: int
    engine: str
    instruction_set: str


class PredictionRecord(Message):
    """Topic ``.predictions``: the answer to one record of ``.features``, or of a device that answers itself; equal
    ``output_id`` means equal bytes.
    """

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
    counts, by reason, releases that were not taken since the start; ``last_refusal`` says what was wrong last, with the
    release of ``refused_epoch`` (0: none that could be read). ``stale``: the release in use has expired and goes on.
    """

    schema_version: Literal[1]
    receipt: Receipt
    candidate: Receipt | None = None
    since_ms: int | None = None
    refusals: dict[str, int] = Field(default_factory=dict)
    last_refusal: str | None = None
    refused_epoch: int = 0
    stale: bool = False


class ControllerStatus(Message):
    """Topic ``.status``, key ``controller``: the controller that may write releases; sent every ten seconds.

    ``name`` is its host and process, ``epoch`` of the release in force.
    """

    schema_version: Literal[1]
    name: str
    epoch: int


class EdgeCounts(Message):
    """What became of the windows of a device that answers itself, since its outbox was made.

    Attributes:
        published: Windows given to the client.
        answered: Answers that are in Kafka, or on disk on their way.
        answered_late: Of these, windows that had waited for a bundle.
        predictions_dropped: Windows whose answer did not fit a full outbox.
        unanswered_dropped: Windows that made room, or could not be read or answered, before a bundle came.
        kept: Windows put into the ring.
        overwritten: Windows that made room in the ring for newer ones, or for another size or shape.
        ring_dropped: Windows that the ring lost or could not take because the disk was full or failed.
        uploaded: Windows uploaded.
        uploaded_bytes: Their records' bytes that counted against the budget.
        over_budget: Shifted windows that were not uploaded because the budget was used up; they are in the ring.
        uploads_dropped: Windows chosen for upload for which the outbox had no room; they are in the ring.
        asked: Windows asked for.
        missed: Windows asked for that are not in the ring, or larger than the budget ever allows.
    """

    published: int = 0
    answered: int = 0
    answered_late: int = 0
    predictions_dropped: int = 0
    unanswered_dropped: int = 0
    kept: int = 0
    overwritten: int = 0
    ring_dropped: int = 0
    uploaded: int = 0
    uploaded_bytes: int = 0
    over_budget: int = 0
    uploads_dropped: int = 0
    asked: int = 0
    missed: int = 0


class DeviceStatus(Message):
    """Topic ``.status``, key ``device/NAME``: what a device that answers itself really runs.

    Attributes:
        session: The session of this start of the client.
        receipt: What the next answer will name; None without a bundle.
        answered_in_epoch: Windows answered since that was swapped in: above 0 it was used on real events.
        since_device_ms: When it was installed, by the device's clock, milliseconds since 1970; None where it was
            installed before this start.
        refusals: Releases that were not taken since this start, by reason.
        last_refusal: What was wrong last.
        refused_epoch: Epoch of what was refused last; 0 for none that could be read.
        stale: The release in use has expired; it goes on.
        counts: What became of the windows.
        ring_windows: Windows in the ring now.
        unanswered: Of these, windows that wait for a bundle.
        ring_error: Why the ring does not work; None when it does.
        last_error: An unexpected error of this start, of what goes on beside answering; it is tried again.
        outbox_records, outbox_bytes: What waits for Kafka.
        refused_records: Records that the broker will never take, since this start.
        requests_waiting: Requests that wait for the budget.
    """

    schema_version: Literal[1]
    session: SessionId
    receipt: Receipt | None = None
    answered_in_epoch: int = 0
    since_device_ms: int | None = None
    refusals: dict[str, int] = Field(default_factory=dict)
    last_refusal: str | None = None
    refused_epoch: int = 0
    stale: bool = False
    counts: EdgeCounts = EdgeCounts()
    ring_windows: int = 0
    unanswered: int = 0
    ring_error: str | None = None
    last_error: str | None = None
    outbox_records: int = 0
    outbox_bytes: int = 0
    refused_records: int = 0
    requests_waiting: int = 0


class WindowRequest(Message):
    """Topic ``.requests``: windows of one session that a device is asked to upload, ``first`` to ``last`` included."""

    schema_version: Literal[1]
    device: DeviceId
    session: SessionId
    first: Sequence
    last: Sequence


class CrashMark(Message):
    """Topic ``.status``, key ``crash/AGENT/TOPIC/PARTITION``: a bug that an agent met at one offset.

    The third one parks the record.
    """

    schema_version: Literal[1]
    offset: int
    count: int
    error: str
