"""The outbox's file: a FIFO of Kafka records in SQLite, one process at a time.

`put` is durable when it returns (write-ahead log, `synchronous=FULL`). Deleting what the broker has is not, on purpose:
a deletion that a power cut undoes makes a duplicate, which is harmless, and it saves a disk flush per acknowledgement.
"""

import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import portalocker
from portalocker import LockFlags

from acclimate.adaptation.errors import AcclimateError, ConfigError

__all__ = [
    "DiskFull",
    "Header",
    "OutboxFull",
    "OutboxRecord",
    "OutboxStore",
    "RefusedRecord",
    "StoredRecord",
    "record_bytes",
]

Header = tuple[str, bytes]

# Upper bounds of what Kafka's format (record batch, version 2) adds to key, value and headers.
_RECORD_OVERHEAD_BYTES = 100
_HEADER_OVERHEAD_BYTES = 10
# Refused records are for looking at, not for keeping: only the newest stay.
_REFUSED_MAX = 100
_FORMAT = 2  # 1: no topic of a record, no memo

_SCHEMA = """
CREATE TABLE waiting (
    row INTEGER PRIMARY KEY AUTOINCREMENT, size INTEGER NOT NULL, key BLOB NOT NULL, headers TEXT NOT NULL,
    value BLOB NOT NULL, topic TEXT);
CREATE TABLE refused (
    row INTEGER PRIMARY KEY, reason TEXT NOT NULL, key BLOB NOT NULL, headers TEXT NOT NULL, value BLOB NOT NULL,
    topic TEXT);
CREATE TABLE about (topic TEXT NOT NULL, memo TEXT);
"""
_FROM_1 = """
ALTER TABLE waiting ADD COLUMN topic TEXT;
ALTER TABLE refused ADD COLUMN topic TEXT;
ALTER TABLE about ADD COLUMN memo TEXT;
"""


class OutboxFull(AcclimateError):
    """The outbox holds as much as it may; the message says how much and what to do."""


class DiskFull(OutboxFull):
    """It is the disk that is full, not the outbox."""


class OutboxRecord(NamedTuple):
    """One Kafka record on its way; without a topic it goes to the outbox's own."""

    key: bytes
    value: bytes
    headers: tuple[Header, ...] = ()
    topic: str | None = None


class StoredRecord(NamedTuple):
    """A record in the outbox; rows are numbered upwards and never reused."""

    row: int
    size_bytes: int
    record: OutboxRecord


@dataclass(frozen=True)
class RefusedRecord:
    """A record that the broker will never take, and what the broker said."""

    row: int
    reason: str
    record: OutboxRecord


def record_bytes(record: OutboxRecord) -> int:
    """Return an upper bound of the size of a record as the broker counts it, in bytes, before compression.

    >>> record_bytes(OutboxRecord(b"pump-7", b"{}", (("a", b"b"),)))
    120
    """
    headers = sum(len(name.encode()) + len(value) + _HEADER_OVERHEAD_BYTES for name, value in record.headers)
    return len(record.key) + len(record.value) + headers + _RECORD_OVERHEAD_BYTES


class OutboxStore:
    """Open the outbox's file, or make it.

    Args:
        path: The file; its folder is made when missing. `PATH-wal`, `PATH-shm` and `PATH.lock` lie beside it.
        topic: Where the records go; a file with records for another topic is refused.
        bytes_max: Limit for what waits, in bytes as `record_bytes` counts.

    Raises:
        ConfigError: Another process uses the file, it belongs to another topic, or it is no outbox.
    """

    def __init__(self, path: Path, topic: str, bytes_max: int) -> None:
        self._path = path
        self._bytes_max = bytes_max
        self._guard = threading.Lock()  # one writer at a time, and the two counts
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(path)
        try:
            self._durable = _open(path)
            try:
                self._prepare(topic)
                # A second connection, for the sending thread: its commits need no flush of the disk.
                self._relaxed = _open(path)
                self._relaxed.execute("PRAGMA synchronous=NORMAL")
            except BaseException:
                self._durable.close()
                raise
        except BaseException as error:
            self._lock.close()
            if isinstance(error, sqlite3.Error):
                raise ConfigError(
                    f"cannot use {path} as an outbox: {error}. Give another file, or move this one away; "
                    "what it still holds cannot be sent then"
                ) from error
            raise
        count, size = self._durable.execute("SELECT count(*), coalesce(sum(size), 0) FROM waiting").fetchone()
        self._waiting_records: int = count
        self._waiting_bytes: int = size

    def put(self, records: Sequence[OutboxRecord], memo: str | None = None) -> None:
        """Store records and replace the memo, all or none; they survive a crash and a power cut once this returns.

        Raises:
            OutboxFull: They do not fit; nothing was stored.
            DiskFull: The same, for want of space on the disk.
        """
        sizes = [record_bytes(record) for record in records]
        total = sum(sizes)
        with self._guard:
            if self._waiting_bytes + total > self._bytes_max:
                raise OutboxFull(self._full_text(len(records), total))
            rows = [
                (size, record.key, _headers_to_text(record.headers), record.value, record.topic)
                for size, record in zip(sizes, records, strict=True)
            ]
            try:
                with _transaction(self._durable):
                    insert = "INSERT INTO waiting(size, key, headers, value, topic) VALUES (?,?,?,?,?)"
                    self._durable.executemany(insert, rows)
                    if memo is not None:
                        self._durable.execute("UPDATE about SET memo = ?", (memo,))
            except sqlite3.OperationalError as error:
                if error.sqlite_errorname != "SQLITE_FULL":
                    raise
                raise DiskFull(
                    f"the disk of outbox {self._path} is full, with {self._waiting_records} records waiting; "
                    "free some space. Nothing was stored of this call"
                ) from error
            self._waiting_records += len(records)
            self._waiting_bytes += total

    def memo(self) -> str | None:
        """Return what was last stored beside the records; None for nothing yet."""
        with self._guard:
            (found,) = self._durable.execute("SELECT memo FROM about").fetchone()
        return None if found is None else str(found)

    def after(self, row: int, records_max: int) -> list[StoredRecord]:
        """Return the oldest waiting records behind `row`, in order."""
        found = self._relaxed.execute(
            "SELECT row, size, key, headers, value, topic FROM waiting WHERE row > ? ORDER BY row LIMIT ?",
            (row, records_max),
        )
        return [
            StoredRecord(row, size, OutboxRecord(key, value, _headers_from_text(headers), topic))
            for row, size, key, headers, value, topic in found
        ]

    def remove(self, records: Iterable[StoredRecord]) -> None:
        """Delete records that the broker has."""
        gone = list(records)
        with self._guard:
            with _transaction(self._relaxed):
                self._relaxed.executemany("DELETE FROM waiting WHERE row = ?", [(stored.row,) for stored in gone])
            self._waiting_records -= len(gone)
            self._waiting_bytes -= sum(stored.size_bytes for stored in gone)

    def refuse(self, stored: StoredRecord, reason: str) -> None:
        """Put a record that the broker will never take aside, so that the ones behind it can go."""
        record = stored.record
        with self._guard:
            with _transaction(self._relaxed):
                self._relaxed.execute("DELETE FROM waiting WHERE row = ?", (stored.row,))
                self._relaxed.execute(
                    "INSERT INTO refused(row, reason, key, headers, value, topic) VALUES (?,?,?,?,?,?)",
                    (stored.row, reason, record.key, _headers_to_text(record.headers), record.value, record.topic),
                )
                self._relaxed.execute(
                    "DELETE FROM refused WHERE row NOT IN (SELECT row FROM refused ORDER BY row DESC LIMIT ?)",
                    (_REFUSED_MAX,),
                )
            self._waiting_records -= 1
            self._waiting_bytes -= stored.size_bytes

    def refused(self) -> list[RefusedRecord]:
        """Return the newest refused records, oldest first."""
        with self._guard:
            found = self._durable.execute("SELECT row, reason, key, headers, value, topic FROM refused ORDER BY row")
            return [
                RefusedRecord(row, reason, OutboxRecord(key, value, _headers_from_text(headers), topic))
                for row, reason, key, headers, value, topic in found
            ]

    def waiting(self) -> tuple[int, int]:
        """Return how many records wait, and their bytes."""
        with self._guard:
            return self._waiting_records, self._waiting_bytes

    def close(self) -> None:
        """Close the file and let other processes have it."""
        with self._guard:
            self._relaxed.close()
            self._durable.close()
            self._lock.close()

    def _prepare(self, topic: str) -> None:
        connection = self._durable
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA journal_mode=WAL")
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if not found and not tables:
            connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version={_FORMAT}; COMMIT;")
            connection.execute("INSERT INTO about(topic) VALUES (?)", (topic,))
            _flush_folder(self._path.parent)
            return
        if found == 1:
            connection.executescript(f"BEGIN IMMEDIATE; {_FROM_1} PRAGMA user_version={_FORMAT}; COMMIT;")
        elif found != _FORMAT:
            raise ConfigError(
                f"{self._path} is not an outbox of format {_FORMAT} (found {found}); give another file, "
                "or empty it with the version that wrote it"
            )
        (stored_topic,) = connection.execute("SELECT topic FROM about").fetchone()
        if stored_topic != topic:
            (count,) = connection.execute("SELECT count(*) FROM waiting").fetchone()
            if count:
                raise ConfigError(
                    f"outbox {self._path} holds {count} records for topic {stored_topic!r}, not {topic!r}; "
                    "send them with the old fleet name first, or give another file"
                )
            connection.execute("UPDATE about SET topic = ?", (topic,))

    def _full_text(self, records: int, size: int) -> str:
        if size > self._bytes_max:
            return (
                f"{records} records with {size} bytes are more than outbox {self._path} may ever hold "
                f"({self._bytes_max} bytes); publish fewer at once or raise ACCLIMATE_OUTBOX_BYTES_MAX"
            )
        return (
            f"outbox {self._path} is full: {self._waiting_records} records with {self._waiting_bytes} bytes wait for "
            f"Kafka, {size} more do not fit the limit of {self._bytes_max}. Nothing was stored of this call; publish "
            "again when the broker is back, or raise ACCLIMATE_OUTBOX_BYTES_MAX"
        )


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Group statements: all or none."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk may have rolled back already
            connection.execute("ROLLBACK")
        raise


def _lock(path: Path) -> BinaryIO:
    name = path.with_name(path.name + ".lock")
    lock = name.open("a+b")
    try:
        portalocker.lock(lock, LockFlags.EXCLUSIVE | LockFlags.NON_BLOCKING)
    except portalocker.LockException as error:
        lock.seek(0)
        owner = lock.read(20).decode(errors="replace").strip()
        lock.close()
        raise ConfigError(
            f"outbox {path} is in use by another client (process {owner or 'unknown'}); one outbox file belongs to "
            "one process: share one Outbox between its device clients, or give each process its own ACCLIMATE_OUTBOX"
        ) from error
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n".encode())
    lock.flush()
    return lock


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)


def _flush_folder(folder: Path) -> None:
    """Make the new file's name durable, not only its content."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _headers_to_text(headers: tuple[Header, ...]) -> str:
    return json.dumps([[name, value.decode("latin-1")] for name, value in headers])  # latin-1 maps every byte


def _headers_from_text(text: str) -> tuple[Header, ...]:
    return tuple((name, value.encode("latin-1")) for name, value in json.loads(text))
