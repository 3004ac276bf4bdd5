"""Join what was published, what the workers answered and what is true: a pure function over records already read.

The ledger is written by whoever publishes, outside the system, so a window that the system lost is still in it. Of
several answers to one event the lowest output offset counts; equal output ids must have equal bytes.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from acclimate.adaptation.errors import ConfigError, DataError
from acclimate.streams.wire.dead_letters import DeadLetter
from acclimate.streams.wire.messages import PredictionRecord, Receipt, event_id
from acclimate.streams.wire.predictions import parse_prediction

__all__ = ["Answer", "Arrival", "Event", "Joined", "Published", "dead_windows", "join", "origins", "read_ledger"]

Event = tuple[str, str, int]  # device, session, seq
Origins = Mapping[Event, tuple[int, int]]  # row of the data, number of the ledger record


@dataclass(frozen=True)
class Published:
    """One record of the ledger: window ``seq + i`` of the session is row ``rows[i]`` of the data."""

    device: str
    session: str
    seq: int
    rows: Sequence[int]

    def events(self) -> Iterator[tuple[Event, int]]:
        """Yield each window's event and its row."""
        for i, row in enumerate(self.rows):
            yield (self.device, self.session, self.seq + i), row


@dataclass(frozen=True)
class Arrival:
    """A record of ``.features`` as the broker took it; ``first`` is its first window, ``time_ms`` the broker's time."""

    partition: int
    offset: int
    time_ms: int
    first: Event


@dataclass(frozen=True)
class Answer:
    """A record of ``.predictions``; ``time_ms`` is the broker's time, ``digest`` the SHA-256 of the value's bytes."""

    partition: int
    offset: int
    time_ms: int
    digest: str
    record: PredictionRecord

    @classmethod
    def parse(cls, partition: int, offset: int, time_ms: int, value: bytes) -> "Answer | None":
        """Read a value; None where it is no prediction."""
        record = parse_prediction(value)
        return None if record is None else cls(partition, offset, time_ms, hashlib.sha256(value).hexdigest(), record)

    @property
    def first(self) -> Event:
        return (self.record.device, self.record.session, self.record.seq)


@dataclass(frozen=True, eq=False)
class Joined:
    """One entry per answered window, in the ledger's order, and what is wrong with the rest.

    Attributes:
        device: (n,) text.
        row: (n,) int64, row of the data.
        label: (n,) int64, the truth.
        source_label, adapted_label, answered_label: (n,) int64; where nothing adapted, adapted is the source's.
        answered_by: (n,) text, the rung that answered.
        adapted_by: (n,) text, the rung that computed the adapted output; ``source`` where nothing adapted.
        magnitude: (n,) float32, calibrated shift.
        arrived_ms, answered_ms: (n,) int64, the broker's times of input and output; -1 where the input is gone.
        source_probabilities, adapted_probabilities: (n, classes) float32; NaN for a window whose record has another
            number of classes than most.
        adaptable: Whether every window has an adapted output.
        windows: Windows in the ledger: answered + lost + those of dead letters.
        lost: Event ids without an answer and without a dead letter.
        dead_letters: Dead letters of the ledger's records, by reason.
        dead_windows: Windows in them.
        foreign_letters: Dead letters of records that are not in the ledger.
        unknown: Answered windows that are not in the ledger.
        unreadable: Records of ``.predictions`` that are no predictions.
        duplicates: Answers whose output id was there before; harmless.
        conflicts: Of these, how many had other bytes; must be 0.
        reanswered: Windows answered again under another output id, e.g. by another bundle.
        receipts: Each distinct receipt and how many of the counted windows name it.
    """

    device: npt.NDArray[np.str_]
    row: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    source_label: npt.NDArray[np.int64]
    adapted_label: npt.NDArray[np.int64]
    answered_label: npt.NDArray[np.int64]
    answered_by: npt.NDArray[np.str_]
    adapted_by: npt.NDArray[np.str_]
    magnitude: npt.NDArray[np.float32]
    arrived_ms: npt.NDArray[np.int64]
    answered_ms: npt.NDArray[np.int64]
    source_probabilities: npt.NDArray[np.float32]
    adapted_probabilities: npt.NDArray[np.float32]
    adaptable: bool
    windows: int
    lost: tuple[str, ...]
    dead_letters: Mapping[str, int]
    dead_windows: int
    foreign_letters: int
    unknown: int
    unreadable: int
    duplicates: int
    conflicts: int
    reanswered: int
    receipts: tuple[tuple[Receipt, int], ...]

    def __len__(self) -> int:
        return int(self.label.shape[0])

    @property
    def devices(self) -> list[str]:
        """Return the devices with an answer, sorted as people count: device-9 before device-10."""
        return sorted(
            set(self.device.tolist()), key=lambda name: [part.zfill(9) for part in re.findall(r"\d+|\D+", name)]
        )

    @property
    def latency_ms(self) -> npt.NDArray[np.int64]:
        """Return (m,) times from input to output by the broker's clock, of windows whose input is still there."""
        known = self.arrived_ms >= 0
        return self.answered_ms[known] - self.arrived_ms[known]


def read_ledger(path: Path) -> list[Published]:
    """Read a ledger: JSON lines with device, session, seq and rows; lines without a device are notes.

    A last line without its end is left out: whoever wrote it was killed before it was durable.

    Raises:
        ConfigError: The file cannot be read or holds no record.
        DataError: A line is not a ledger record.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read ledger {path}: {error}; `acclimate fleet` writes one") from error
    published = []
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            fields = json.loads(line)
            if isinstance(fields, dict) and "device" not in fields:
                continue
            rows = tuple(int(row) for row in fields["rows"])
            published.append(Published(str(fields["device"]), str(fields["session"]), int(fields["seq"]), rows))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}, line {number}: expected JSON with device, session, seq and rows, found {line[:80]!r}",
                "ledger",
            ) from error
    if not published:
        raise ConfigError(f"ledger {path} holds no record; `acclimate fleet` writes one as it publishes")
    return published


def origins(ledger: Sequence[Published]) -> Origins:
    """Return each event's row and the number of the ledger record that it is in.

    Raises:
        DataError: An event is in the ledger twice.
    """
    origin: dict[Event, tuple[int, int]] = {}
    for number, published in enumerate(ledger):
        for event, row in published.events():
            if event in origin:
                raise DataError(f"the ledger has {event_id(*event)} twice; event ids are never reused", "ledger")
            origin[event] = (row, number)
    return origin


def dead_windows(
    origin: Origins, arrivals: Iterable[Arrival], letters: Iterable[DeadLetter]
) -> tuple[set[Event], dict[str, int], int]:
    """Return the windows of refused records, the letters by reason, and how many letters are of foreign records.

    A letter names the place of its record; the record names its first window. Its last one is before the next record's
    first, and within one line of the ledger.
    """
    places = {(arrival.partition, arrival.offset): arrival.first for arrival in arrivals}
    firsts = set(places.values())
    dead: set[Event] = set()
    reasons: Counter[str] = Counter()
    foreign = 0
    for letter in letters:
        first = places.get((letter.origin_partition, letter.origin_offset))
        if first is None or first not in origin:
            foreign += 1
            continue
        reasons[letter.reason] += 1
        device, session, seq = first
        event, number = first, origin[first][1]
        while event == first or (event not in firsts and event in origin and origin[event][1] == number):
            dead.add(event)
            seq += 1
            event = (device, session, seq)
    return dead, dict(reasons.most_common()), foreign


def join(
    ledger: Sequence[Published],
    arrivals: Sequence[Arrival],
    answers: Sequence[Answer],
    letters: Sequence[DeadLetter],
    labels: Mapping[int, int],
    unreadable: int = 0,
) -> Joined:
    """Join the ledger with everything that was read.

    Args:
        ledger: What was published, in order.
        arrivals: Records of ``.features``; of several with one event the lowest offset is the arrival.
        answers: Records of ``.predictions``, in any order.
        letters: Records of ``.dlq``.
        labels: True class of each row.
        unreadable: Passed on.

    Raises:
        DataError: The ledger names a row without a label: it belongs to other data.
    """
    origin = origins(ledger)
    for event, (row, _) in origin.items():
        if row not in labels:
            raise DataError(
                f"the ledger says that {event_id(*event)} is row {row}, which the data selection does not have; "
                "give the same --data, --label and --target as `acclimate fleet` got",
                "ledger",
            )
    arrived: dict[Event, int] = {}
    for arrival in sorted(arrivals, key=lambda a: (a.offset, a.partition)):
        arrived.setdefault(arrival.first, arrival.time_ms)

    entries: dict[Event, tuple[Answer, int]] = {}  # and the window's place in the columns
    digests: dict[str, str] = {}
    unknown = duplicates = conflicts = reanswered = 0
    for answer in sorted(answers, key=lambda a: (a.offset, a.partition)):
        record = answer.record
        if record.output_id in digests:
            duplicates += 1
            conflicts += digests[record.output_id] != answer.digest
            continue
        digests[record.output_id] = answer.digest
        for i in range(len(record.labels)):
            event = (record.device, record.session, record.seq + i)
            if event not in origin:
                unknown += 1
            elif event in entries:
                reanswered += 1
            else:
                entries[event] = (answer, i)

    dead, reasons, foreign = dead_windows(origin, arrivals, letters)
    dead -= entries.keys()
    counted = [event for event in origin if event in entries]
    answered = [entries[event] for event in counted]
    places = [(answer.record, i) for answer, i in answered]
    outputs = [(record.source, record.adapted or record.source, i) for record, i in places]
    rows = [origin[event][0] for event in counted]
    return Joined(
        device=np.array([event[0] for event in counted], dtype=np.str_),
        row=np.array(rows, dtype=np.int64),
        label=np.array([labels[row] for row in rows], dtype=np.int64),
        source_label=np.array([source.labels[i] for source, _, i in outputs], dtype=np.int64),
        adapted_label=np.array([adapted.labels[i] for _, adapted, i in outputs], dtype=np.int64),
        answered_label=np.array([record.labels[i] for record, i in places], dtype=np.int64),
        answered_by=np.array([record.answered_by[i] for record, i in places], dtype=np.str_),
        adapted_by=np.array([record.adapted_by or "source" for record, _ in places], dtype=np.str_),
        magnitude=np.array([record.shift.magnitude[i] for record, i in places], dtype=np.float32),
        arrived_ms=np.array([arrived.get(answer.first, -1) for answer, _ in answered], dtype=np.int64),
        answered_ms=np.array([answer.time_ms for answer, _ in answered], dtype=np.int64),
        source_probabilities=_probabilities([source.probabilities[i] for source, _, i in outputs]),
        adapted_probabilities=_probabilities([adapted.probabilities[i] for _, adapted, i in outputs]),
        adaptable=all(record.adapted is not None for record, _ in places),
        windows=len(origin),
        lost=tuple(event_id(*event) for event in origin if event not in entries and event not in dead),
        dead_letters=reasons,
        dead_windows=len(dead),
        foreign_letters=foreign,
        unknown=unknown,
        unreadable=unreadable,
        duplicates=duplicates,
        conflicts=conflicts,
        reanswered=reanswered,
        receipts=tuple(Counter(record.receipt for record, _ in places).most_common()),
    )


def _probabilities(rows: Sequence[Sequence[float]]) -> npt.NDArray[np.float32]:
    """Return (n, classes), the usual number of them: bundles may differ in it, and anybody may write a record."""
    classes = Counter(map(len, rows)).most_common(1)[0][0] if rows else 0
    unusual = [np.nan] * classes
    found = [row if len(row) == classes else unusual for row in rows]
    return np.array(found, dtype=np.float32).reshape(len(rows), classes)
