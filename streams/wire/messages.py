"""What travels in Kafka record values: pydantic models at the edge, JSON Schemas exported to ``docs/schemas``.

Evolution rules: new fields have defaults, a type never changes, a name is never reused; readers ignore fields they do
not know. ``schema_version`` rises only when an old reader would misread a new record.
"""

from collections.abc import Sized
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from acclimate.registry.canonical import added

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
# Open: a reader shows a name that it does not know, so no list of names is part of the contract.
Name = Annotated[str, Field(min_length=1, max_length=64)]
_FLOAT32_MAX = 3.4028234663852886e38
Float32 = Annotated[float, Field(ge=-_FLOAT32_MAX, le=_FLOAT32_MAX, allow_inf_nan=False)]


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
    """What one model says about n windows; ``labels`` are indices of the largest of ``probabilities`` (n, classes)."""

    labels: list[int]
    probabilities: list[list[Float32]]


class Shift(Message):
    """How far n windows lie from the source: uncapped; each part is divided by its 0.99 quantile on held-out source
    windows.

    ``magnitude`` is the larger of ``mean`` and ``variance``, all (n,); the others hold the two parts of every BatchNorm
    layer, (n, layers).
    """

    magnitude: list[Float32]
    mean: list[Float32]
    variance: list[Float32]
    layers_mean: list[list[Float32]]
    layers_variance: list[list[Float32]]


class Receipt(Message):
    """All that an output depends on besides the event itself.

    Names are open: a reader shows a mode, gate, precision or placement that it does not know. The fields that came
    after version 1 of ``.predictions`` are left out of the bytes while they are None.

    Attributes:
        bundle, adapter: Digests; no adapter is the source itself.
        epoch: The release's; 0 for a bundle that was given by hand.
        mode: Who answers, such as ``observe`` or ``always``.
        config: Digest of the settings.
        code_contract_version: Raised whenever code changes an output's bytes.
        engine, instruction_set: What computed.
        adapter_counter: How many adapters the device had before this one.
        gate: The gate that let the adapted output answer.
        precision: Of the numbers that were computed with, such as ``fp32`` or ``int8``.
        placement: Where it was computed, ``worker`` or ``device``; None where that changes no byte.
    """

    bundle: Digest
    adapter: Digest | None
    epoch: int
    mode: Name
    config: Digest
    code_contract_version: int
    engine: str
    instruction_set: str
    adapter_counter: Annotated[int, Field(ge=0)] | None = added(None)
    gate: Name | None = added(None)
    precision: Name | None = added(None)
    placement: Name | None = added(None)


class PredictionRecord(Message):
    """Topic ``.predictions``: the answer to one record of ``.features``, or of a device that answers itself; equal
    ``output_id`` means equal bytes.

    Every column has one entry per window, n of them; window i is the event ``event_id(device, session, seq + i)``. The
    answer is ``source`` where ``answered_by`` says ``source``, and ``adapted`` for any other name.

    Attributes:
        answered_by: The rung that answered, such as ``source`` or ``leantta``; names are open.
        labels: Index in ``class_names``, which is the order of all columns of probabilities.
        adapted: What the rung ``adapted_by`` computed for every window, whoever answered; both are None where no rung
            applies (rows without a time axis).
        distance, gain: LeanTTA's d and a, (n, layers); None where it does not apply.
        flags: By name, the places of the windows that it marks; names are open.
        doubt: (n,) 0 to 1; left out while nothing computes it.
    """

    schema_version: Literal[2]
    output_id: Digest
    device: DeviceId
    session: SessionId
    seq: Sequence
    event_times_ms: Annotated[list[EventTime], Field(min_length=1, max_length=WINDOWS_PER_RECORD_MAX)]
    input_digests: list[Digest]
    answered_by: list[Name]
    labels: list[int]
    class_names: Annotated[list[str], Field(min_length=1)]
    source: Output
    adapted: Output | None
    adapted_by: Name | None
    shift: Shift
    distance: list[list[Float32]] | None
    gain: list[list[Float32]] | None
    flags: dict[Name, list[int]]
    receipt: Receipt
    doubt: list[Annotated[Float32, Field(ge=0, le=1)]] | None = added(None)

    @model_validator(mode="after")
    def _columns_fit(self) -> Self:
        """Refuse what a reader would index out of range."""
        shift, outputs = self.shift, [output for output in (self.source, self.adapted) if output is not None]
        n, classes = len(self.event_times_ms), len(self.class_names)
        layers = len(shift.layers_mean[0]) if shift.layers_mean else 0
        of_labels = [self.labels, *(output.labels for output in outputs)]
        of_classes = [output.probabilities for output in outputs]
        matrices = (shift.layers_mean, shift.layers_variance, self.distance, self.gain)
        of_layers = [matrix for matrix in matrices if matrix is not None]
        numbers = [column for column in (shift.magnitude, shift.mean, shift.variance, self.doubt) if column is not None]
        columns: list[Sized] = [self.input_digests, self.answered_by, *numbers, *of_labels, *of_classes, *of_layers]
        if any(len(column) != n for column in columns):
            raise ValueError(f"expected {n} entries in every column, one per event time")
        for those, width in ((of_classes, classes), (of_layers, layers)):
            if any(len(row) != width for matrix in those for row in matrix):
                raise ValueError(f"expected rows of {width} numbers, one per class or layer")
        if any(min(labels) < 0 or max(labels) >= classes for labels in of_labels):
            raise ValueError(f"expected labels from 0 to {classes - 1}, one of class_names")
        if any(not 0 <= place < n for places in self.flags.values() for place in places):
            raise ValueError(f"expected flags at places from 0 to {n - 1}")
        if (self.adapted is None) != (self.adapted_by is None):
            raise ValueError("expected adapted and adapted_by together")
        if self.adapted is None and any(rung != "source" for rung in self.answered_by):
            raise ValueError("expected an adapted output, since a rung other than the source answered")
        return self


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
