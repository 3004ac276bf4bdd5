"""The last windows of a device, in a file of fixed size; the oldest make room.

    head       4,096 bytes, JSON: whose windows, their shape, number of slots
    index      64 bytes per slot: event, time, magnitude, flags, checksums
    windows    one slot of float32 after the other

Everything is written once, where it stays; the space is taken when the file is made. After `kill -9` all that was put
is there; after a power cut what the disk had, and a checksum finds what it had not.
"""

import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import portalocker
from portalocker import LockFlags

from acclimate.adaptation.errors import ConfigError
from acclimate.streams.device.sampling import six_digits

__all__ = ["Kept", "Replaced", "WindowRing"]

_HEAD_BYTES = 4096
_FORMAT = 1
_ENTRY = np.dtype(
    [
        ("number", "<u8"),  # counts windows from 1; slot (number - 1) % slots
        ("session", "S16"),
        ("seq", "<u8"),
        ("time_ms", "<i8"),
        ("magnitude", "<f4"),
        ("flags", "<u4"),
        ("window_crc", "<u4"),
        ("rate_hz", "<f4"),  # 0 where the device does not say
        ("step_samples", "<u4"),
        ("crc", "<u4"),  # of all before
    ]
)
_CHECKED_BYTES = _ENTRY.itemsize - 4
_UPLOADED, _UNANSWERED = 1, 2

Entries = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]
Slots = npt.NDArray[np.int64]


class Replaced(NamedTuple):
    """How many windows gave way, and how many of these nobody had answered."""

    windows: int
    unanswered: int


class Kept(NamedTuple):
    """Consecutive windows of one session and rate: (n, channels, length), and what was published with them."""

    session: str
    seq: int
    event_times_ms: Sequence[int]
    windows: Float32
    sampling_rate_hz: float | None
    step_samples: int | None


class WindowRing:
    """Open the ring of one device, or make it with the first windows. Use it from one thread at a time.

    Args:
        path: The file; one process at a time. Its folder is made when missing.
        owner: Whose windows these are, ``FLEET/DEVICE``.
        bytes_max: Size of the file, in bytes. A ring of another size or shape is made anew, and what it held counts as
            replaced.

    Raises:
        ConfigError: Another process uses the file, it belongs to another device, or it is no ring.
        OSError: The disk fails.
    """

    def __init__(self, path: Path, owner: str, bytes_max: int) -> None:
        self._path = path
        self._owner = owner
        self._bytes_max = bytes_max
        self._entries: Entries = np.zeros(0, _ENTRY)
        self._shape = (0, 0)
        self._number = 0
        self._outdated = False
        self.windows = 0  # kept
        self.unanswered = 0  # of these
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            portalocker.lock(self._file, LockFlags.EXCLUSIVE | LockFlags.NON_BLOCKING)
            self._read()
        except portalocker.AlreadyLocked as error:
            os.close(self._file)
            raise ConfigError(f"ring {path} is in use by another client; give each its own file") from error
        except BaseException:
            os.close(self._file)
            raise

    @property
    def samples(self) -> int:
        """Samples of one window, over all channels."""
        return self._shape[0] * self._shape[1]

    def put(
        self,
        session: str,
        seq: int,
        event_times_ms: Sequence[int],
        windows: Float32,
        magnitudes: Float32 | None,
        uploaded: npt.NDArray[np.bool_] | None = None,
        sampling_rate_hz: float | None = None,
        step_samples: int | None = None,
    ) -> Replaced:
        """Keep windows; once this returns they survive ``kill -9``, unanswered ones a power cut as well.

        Args:
            session: 16 hexadecimal digits.
            seq: Number of the first window.
            event_times_ms: One per window.
            windows: (n, channels, length).
            magnitudes: The shift magnitudes, (n,); None where nobody has answered them.
            uploaded: Which of them were uploaded, (n,).
            sampling_rate_hz: Their rate, six digits of which are kept.
            step_samples: Samples from window to window.

        Raises:
            OSError: The disk is full or fails.
            ConfigError: Not one window fits.
        """
        replaced = Replaced(0, 0)
        if self._outdated or windows.shape[1:] != self._shape:
            replaced = self._make(windows.shape[1], windows.shape[2])
        count, slots = len(windows), len(self._entries)
        added = np.zeros(count, _ENTRY)
        added["number"] = np.arange(self._number + 1, self._number + 1 + count)
        added["session"], added["seq"] = session.encode(), np.arange(seq, seq + count)
        added["time_ms"] = event_times_ms
        added["rate_hz"], added["step_samples"] = sampling_rate_hz or 0, step_samples or 0
        added["magnitude"] = np.nan if magnitudes is None else magnitudes
        added["flags"] = _UNANSWERED if magnitudes is None else 0
        if uploaded is not None:
            added["flags"] |= uploaded.astype(np.uint32) * np.uint32(_UPLOADED)
        raw = windows.astype("<f4", copy=False)
        content, size = memoryview(raw.tobytes()), self._window_bytes
        added["window_crc"] = [zlib.crc32(content[start : start + size]) for start in range(0, len(content), size)]
        _seal(added)
        skipped = added[:-slots]  # more than the ring holds: only the last are kept
        replaced = _sum(replaced, Replaced(len(skipped), int(np.count_nonzero(skipped["flags"] & _UNANSWERED))))
        done = len(skipped)
        while done < count:
            slot = (self._number + done) % slots
            part = slice(done, min(count, done + slots - slot))
            target = slice(slot, slot + part.stop - part.start)
            old = self._entries[target]
            lost = Replaced(int(np.count_nonzero(old["number"])), int(np.count_nonzero(old["flags"] & _UNANSWERED)))
            replaced = _sum(replaced, lost)
            # The window first: an entry whose window was overwritten before it fails its checksum.
            _write(self._file, content[part.start * size : part.stop * size], self._window_at(slot))
            self._write_entries(slot, added[part])
            self.windows += part.stop - part.start - lost.windows
            self.unanswered += int(np.count_nonzero(added["flags"][part] & _UNANSWERED)) - lost.unanswered
            done = part.stop
        self._number += count
        if magnitudes is None:
            os.fdatasync(self._file)
        return replaced

    def find(self, session: str, first: int, last: int) -> list[tuple[int, int]]:
        """Return sequence number and slot of the windows of a session from `first` to `last`, in order."""
        entries = self._entries
        mine = (entries["session"] == session.encode()) & (entries["seq"] >= first) & (entries["seq"] <= last)
        slots = np.flatnonzero(mine & (entries["number"] > 0))
        return sorted(zip(entries["seq"][slots].tolist(), slots.tolist(), strict=True))

    def oldest_unanswered(self, most: int) -> list[int]:
        """Return the slots of the oldest windows that nobody has answered, as far as they follow one another."""
        waiting = np.flatnonzero(self._entries["flags"] & _UNANSWERED)
        entries = self._entries[waiting]
        order = np.argsort(entries["number"])[:most]
        entries = entries[order]
        slots: list[int] = waiting[order].tolist()
        run = 1
        while run < len(slots) and (
            entries["session"][run] == entries["session"][0] and entries["seq"][run] == entries["seq"][0] + run
        ):
            run += 1
        return slots[:run]

    def read(self, slots: Sequence[int]) -> Kept | None:
        """Return the consecutive windows in some slots; None where the first one is damaged.

        They end before the first damaged one, or the first of which the device said another rate or step.
        """
        entries = self._entries[list(slots)]
        said = entries[["rate_hz", "step_samples"]]
        found = []
        for entry, each, slot in zip(entries, said, slots, strict=True):
            if each != said[0]:
                break
            raw = os.pread(self._file, self._window_bytes, self._window_at(slot))
            if len(raw) != self._window_bytes or zlib.crc32(raw) != entry["window_crc"]:
                break
            found.append(np.frombuffer(raw, "<f4").reshape(self._shape))
        if not found:
            return None
        times: list[int] = entries["time_ms"][: len(found)].tolist()
        windows = np.stack(found).astype(np.float32, copy=False)
        rate_hz, step = float(entries[0]["rate_hz"]), int(entries[0]["step_samples"])
        session, seq = entries[0]["session"].decode(), int(entries[0]["seq"])
        return Kept(session, seq, times, windows, six_digits(rate_hz) if rate_hz else None, step or None)

    def mark_answered(self, slots: Sequence[int], magnitudes: Float32 | None) -> None:
        """Remember the magnitudes of windows that were answered late; None for such as never can be."""
        for place, slot in enumerate(slots):
            entry = self._entries[slot : slot + 1].copy()
            self.unanswered -= int(entry["flags"][0] & _UNANSWERED) // _UNANSWERED
            entry["flags"] &= np.uint32(~_UNANSWERED & 0xFFFFFFFF)
            entry["magnitude"] = np.nan if magnitudes is None else magnitudes[place]
            self._rewrite(slot, entry)

    def mark_uploaded(self, slots: Sequence[int], uploaded: bool) -> None:
        """Remember that windows were uploaded, or that they were not after all."""
        for slot in slots:
            entry = self._entries[slot : slot + 1].copy()
            entry["flags"] = entry["flags"] | _UPLOADED if uploaded else entry["flags"] & ~np.uint32(_UPLOADED)
            self._rewrite(slot, entry)

    def uploaded(self, session: str, seq: int) -> bool:
        """Tell whether a window was uploaded."""
        return any(self._entries["flags"][slot] & _UPLOADED for _, slot in self.find(session, seq, seq))

    def give_way(self) -> Replaced:
        """Give the space on the disk back and return what is gone; windows that come later start anew."""
        gone = Replaced(self.windows, self.unanswered)
        self._entries, self._shape, self._outdated = np.zeros(0, _ENTRY), (0, 0), False
        self.windows = self.unanswered = 0
        os.ftruncate(self._file, 0)
        return gone

    def close(self) -> None:
        """Close the file and let other processes have it."""
        os.close(self._file)

    @property
    def _window_bytes(self) -> int:
        return 4 * self._shape[0] * self._shape[1]

    def _window_at(self, slot: int) -> int:
        return _HEAD_BYTES + len(self._entries) * _ENTRY.itemsize + slot * self._window_bytes

    def _write_entries(self, slot: int, entries: Entries) -> None:
        _write(self._file, entries.tobytes(), _HEAD_BYTES + slot * _ENTRY.itemsize)
        self._entries[slot : slot + len(entries)] = entries

    def _rewrite(self, slot: int, entry: Entries) -> None:
        _seal(entry)
        self._write_entries(slot, entry)

    def _slots(self, channels: int, length: int) -> int:
        return (self._bytes_max - _HEAD_BYTES) // (_ENTRY.itemsize + 4 * channels * length)

    def _make(self, channels: int, length: int) -> Replaced:
        """Start anew for windows of another shape and return what is gone."""
        slots = self._slots(channels, length)
        if slots < 1:
            raise ConfigError(
                f"ring {self._path} of {self._bytes_max} bytes holds not one window of {channels} x {length}; "
                "give it more"
            )
        gone = self.give_way()
        size = _HEAD_BYTES + slots * (_ENTRY.itemsize + 4 * channels * length)
        try:
            os.posix_fallocate(self._file, 0, size)
            head = {"ring": _FORMAT, "owner": self._owner, "channels": channels, "length": length, "slots": slots}
            _write(self._file, json.dumps(head).encode().ljust(_HEAD_BYTES), 0)
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, 0)
            raise
        self._entries, self._shape, self._number = np.zeros(slots, _ENTRY), (channels, length), 0
        return gone

    def _read(self) -> None:
        size = os.fstat(self._file).st_size
        if not size:
            return
        head_bytes = os.pread(self._file, _HEAD_BYTES, 0)
        if not head_bytes.strip(b"\0"):  # ended while it was made
            return
        try:
            head = json.loads(head_bytes)
            found = (head["ring"], head["owner"])
            shape, slots = (int(head["channels"]), int(head["length"])), int(head["slots"])
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(
                f"{self._path} is no ring of windows; give another file, or move this one away"
            ) from error
        if found != (_FORMAT, self._owner):
            raise ConfigError(
                f"ring {self._path}: expected format {_FORMAT} of {self._owner}, found format {found[0]} of "
                f"{found[1]}; give another file, or move this one away"
            )
        raw = os.pread(self._file, slots * _ENTRY.itemsize, _HEAD_BYTES)
        entries = np.frombuffer(raw[: len(raw) // _ENTRY.itemsize * _ENTRY.itemsize], _ENTRY).copy()
        if len(entries) != slots:
            raise ConfigError(f"ring {self._path} is cut short; move it away")
        for place, entry in enumerate(entries):
            if entry["number"] and zlib.crc32(entry.tobytes()[:_CHECKED_BYTES]) != entry["crc"]:
                entries[place] = np.zeros((), _ENTRY)
        self._entries, self._shape = entries, shape
        self._number = int(entries["number"].max(initial=0))
        self.windows = int(np.count_nonzero(entries["number"]))
        self.unanswered = int(np.count_nonzero(entries["flags"] & _UNANSWERED))
        self._outdated = slots != self._slots(*shape)


def _seal(entries: Entries) -> None:
    raw = memoryview(entries.tobytes())
    size = _ENTRY.itemsize
    starts = range(0, len(raw), size)
    entries["crc"] = [zlib.crc32(raw[start : start + _CHECKED_BYTES]) for start in starts]


def _sum(one: Replaced, other: Replaced) -> Replaced:
    return Replaced(one.windows + other.windows, one.unanswered + other.unanswered)


def _write(file: int, content: bytes | memoryview, offset: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written
