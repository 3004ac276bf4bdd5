"""Play a recording as a fleet: every group of a split becomes a device, all of them live at once.

The ledger is written outside of Kafka, so that a collector can tell what was published from what arrived.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
import numpy.typing as npt

from acclimate.adaptation.errors import ConfigError
from acclimate.infra.settings import Settings
from acclimate.streams.device.client import DeviceClient, Publication, new_session, publish_together
from acclimate.streams.device.outbox import Outbox
from acclimate.streams.wire.messages import WINDOWS_PER_RECORD_MAX

__all__ = ["FleetReport", "Recording", "play", "schedule"]

# At full speed, so many records go to disk with one flush, and so many wait for the broker at most.
_TOGETHER_RECORDS = 64
_AHEAD_RECORDS = 2_000
_INTERRUPT_LIMIT_S = 5.0


class Recording(Protocol):
    """What is played: `acclimate.adaptation.data.dataset.Split` has all of it.

    `windows` is (n, channels, length) float32 and `rows` (n,) their place in the stored file; `streams` yields each
    group's name and its slice of both, in time order.
    """

    @property
    def windows(self) -> npt.NDArray[np.float32]: ...

    @property
    def rows(self) -> npt.NDArray[np.int64]: ...

    def streams(self) -> Iterator[tuple[str, slice]]: ...


@dataclass(frozen=True)
class FleetReport:
    """What a play published.

    Attributes:
        devices: Devices that published.
        records: Records published.
        windows: Windows in them.
        delivered: Records that Kafka acknowledged, older ones of the same outbox included.
        refused: Records that Kafka will never take.
        waiting: Records still on disk.
        seconds: From the first window to the last acknowledgement.
        windows_per_s: Windows over seconds.
    """

    devices: int
    records: int
    windows: int
    delivered: int
    refused: int
    waiting: int
    seconds: float
    windows_per_s: float


def schedule(streams: Iterable[tuple[str, slice]], windows_per_record: int) -> list[tuple[str, slice]]:
    """Return the records of all devices in playing order: each device in its own order, all at the same progress.

    >>> schedule([("a", slice(0, 4)), ("b", slice(4, 6))], 2)
    [('a', slice(0, 2, None)), ('b', slice(4, 6, None)), ('a', slice(2, 4, None))]
    """
    placed = []
    for number, (group, whole) in enumerate(streams):
        starts = range(whole.start, whole.stop, windows_per_record)
        for index, start in enumerate(starts):
            part = slice(start, min(start + windows_per_record, whole.stop))
            placed.append(((index + 0.5) / len(starts), number, group, part))
    return [(group, part) for _, _, group, part in sorted(placed, key=lambda entry: entry[:2])]


def play(
    split: Recording,
    settings: Settings,
    *,
    group_key: str,
    ledger: Path,
    outbox_path: Path,
    sampling_rate_hz: float | None = None,
    rate_windows_per_s: float | None = None,
    windows_per_record: int = 16,
    limit: int | None = None,
    about: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
    flush_timeout_s: float | None = None,
    session: Callable[[], str] = new_session,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> FleetReport:
    """Publish a recording and wait for its delivery; an absent broker is waited for.

    Args:
        split: What to play; group VALUE becomes the device `GROUP_KEY-VALUE`.
        settings: Broker, fleet and limits.
        group_key: First part of the device ids.
        ledger: File that gets one JSON line per record once the record is safe on disk; continued if it is about the
            same fleet and data.
        outbox_path: File of the buffer that all devices share.
        sampling_rate_hz: Rate of the samples, sent with each record; None says nothing.
        rate_windows_per_s: Windows per second of the whole fleet; None is as fast as possible.
        windows_per_record: Windows in one Kafka record, 1 to 256. More cost less per window and wait longer.
        limit: Stop after so many windows.
        about: Written into the ledger's first line.
        progress: Called with the number of windows published so far.
        flush_timeout_s: Seconds to wait for the delivery at the end; None waits for ever.
        session: Makes a session id for each device.
        monotonic: Clock of the rate, in seconds.
        sleep: Waits so many seconds.

    Raises:
        ConfigError: An option is out of range, or the outbox cannot be used.
        DataError: A group's value does not make a device id, or one window is larger than Kafka takes.
    """
    if not 1 <= windows_per_record <= WINDOWS_PER_RECORD_MAX:
        raise ConfigError(f"windows per record must be 1 to {WINDOWS_PER_RECORD_MAX}, not {windows_per_record}")
    if rate_windows_per_s is not None and not rate_windows_per_s > 0:
        raise ConfigError(f"the rate must be above 0 windows per second, not {rate_windows_per_s}")
    if limit is not None and limit < 1:
        raise ConfigError(f"the limit must be at least 1 window, not {limit}")
    plan = _first_windows(schedule(split.streams(), windows_per_record), limit)
    about = {"ledger": 1, "fleet": settings.fleet, **(about or {})}
    _check_ledger(ledger, about)
    outbox = Outbox(outbox_path, settings)
    try:
        clients = {
            group: DeviceClient(
                f"{group_key}-{group}",
                settings,
                outbox=outbox,
                session=session(),
                sampling_rate_hz=sampling_rate_hz,
            )
            for group in dict.fromkeys(group for group, _ in plan)
        }
        started = monotonic()
        published = 0
        with ledger.open("a", encoding="utf-8") as lines:
            _write(lines, [about])
            for batch in _due(plan, rate_windows_per_s, monotonic, sleep):
                outbox.wait_until_below(_AHEAD_RECORDS)
                _publish(split, [(clients[group], part) for group, part in batch], lines)
                published += sum(part.stop - part.start for _, part in batch)
                if progress is not None:
                    progress(published)
        waiting = outbox.flush(flush_timeout_s)
        seconds = monotonic() - started
        stats = outbox.stats()
    except KeyboardInterrupt:
        outbox.close(_INTERRUPT_LIMIT_S)  # what is in the ledger gets to Kafka, if that is possible soon
        raise
    finally:
        outbox.close(0.0)
    return FleetReport(
        devices=len(clients),
        records=len(plan),
        windows=published,
        delivered=stats.delivered,
        refused=stats.refused,
        waiting=waiting,
        seconds=round(seconds, 3),
        windows_per_s=round(published / seconds, 1) if seconds > 0 else 0.0,
    )


def _check_ledger(ledger: Path, about: Mapping[str, Any]) -> None:
    """Refuse to mix two fleets or recordings in one file: rows of one would be taken for rows of the other."""
    ledger.parent.mkdir(parents=True, exist_ok=True)
    if not ledger.exists() or ledger.stat().st_size == 0:
        return
    with ledger.open(encoding="utf-8") as lines:
        first = lines.readline()
    if first != json.dumps(about, separators=(",", ":")) + "\n":
        raise ConfigError(f"ledger {ledger} is about something else: {first.strip()[:300]}; name another with --ledger")


def _publish(split: Recording, batch: Sequence[tuple[DeviceClient, slice]], lines: TextIO) -> None:
    ids = publish_together([Publication(client, split.windows[part]) for client, part in batch])
    entries = []
    for (client, part), published in zip(batch, ids, strict=True):
        seq = int(published[0].rpartition("/")[2])
        rows = split.rows[part].tolist()
        entries.append({"device": client.device, "session": client.session, "seq": seq, "rows": rows})
    _write(lines, entries)


def _write(lines: TextIO, entries: Iterable[Mapping[str, Any]]) -> None:
    lines.write("".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in entries))
    lines.flush()


def _first_windows(plan: Sequence[tuple[str, slice]], limit: int | None) -> list[tuple[str, slice]]:
    kept = []
    left = limit if limit is not None else sum(part.stop - part.start for _, part in plan)
    for group, part in plan:
        if left <= 0:
            break
        kept.append((group, slice(part.start, min(part.stop, part.start + left))))
        left -= part.stop - part.start
    return kept


def _due(
    plan: Sequence[tuple[str, slice]],
    rate: float | None,
    monotonic: Callable[[], float],
    sleep: Callable[[float], None],
) -> Iterator[Sequence[tuple[str, slice]]]:
    """Yield records in batches, each batch when its first record is due; a late player catches up."""
    if rate is None:
        for first in range(0, len(plan), _TOGETHER_RECORDS):
            yield plan[first : first + _TOGETHER_RECORDS]
        return
    started = monotonic()
    before = 0  # windows ahead of the next record
    position = 0
    while position < len(plan):
        wait_s = started + before / rate - monotonic()
        if wait_s > 0:
            sleep(wait_s)
        elapsed_s = monotonic() - started
        batch: list[tuple[str, slice]] = []
        while position < len(plan) and len(batch) < _TOGETHER_RECORDS and (not batch or before / rate <= elapsed_s):
            batch.append(plan[position])
            before += plan[position][1].stop - plan[position][1].start
            position += 1
        yield batch
