"""The ring of windows: fixed in size, whole after a kill, and it counts what it forgets."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.adaptation.errors import ConfigError
from acclimate.streams.device.ring import WindowRing

ROOT = Path(__file__).parents[3]
SESSION, OTHER = "00ff00ff00ff00ff", "ff00ff00ff00ff00"
SLOT = 64 + 4 * 2 * 3  # an index entry and a window of 2 x 3
ROOM_FOR_10 = 4096 + 10 * SLOT


def numbered(first: int, count: int) -> np.ndarray:
    """Return windows that hold their number."""
    return np.repeat(np.arange(first, first + count, dtype=np.float32), 6).reshape(count, 2, 3)


def put(ring: WindowRing, seq: int, count: int, session: str = SESSION, answered: bool = True) -> tuple[int, int]:
    times = list(range(1000 + seq, 1000 + seq + count))
    magnitudes = np.full(count, 0.5, np.float32) if answered else None
    return tuple(ring.put(session, seq, times, numbered(seq, count), magnitudes))


def content(ring: WindowRing, session: str = SESSION) -> list[int]:
    """Return the numbers that are in the ring, each checked against its window and time."""
    found = []
    for seq, slot in ring.find(session, 0, 2**40):
        kept = ring.read([slot])
        assert kept is not None
        assert (kept.session, kept.seq, list(kept.event_times_ms)) == (session, seq, [1000 + seq])
        np.testing.assert_array_equal(kept.windows, numbered(seq, 1))
        found.append(seq)
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 25), max_size=12), st.integers(0, 12))
def test_the_newest_windows_are_there_and_the_rest_is_counted(tmp_path_factory, sizes: list[int], reopen: int):
    path = tmp_path_factory.mktemp("ring") / "ring"
    ring = WindowRing(path, "works/pump-7", ROOM_FOR_10)
    seq = gone = 0
    for number, size in enumerate(sizes):
        if number == reopen:
            ring.close()
            ring = WindowRing(path, "works/pump-7", ROOM_FOR_10)
        gone += put(ring, seq, size)[0]
        seq += size
    assert content(ring) == list(range(max(0, seq - 10), seq))
    assert (ring.windows, gone) == (min(10, seq), max(0, seq - 10))
    assert path.stat().st_size in (0, ROOM_FOR_10)
    ring.close()


def test_the_file_has_its_size_from_the_first_window_on(tmp_path: Path):
    ring = WindowRing(tmp_path / "ring", "works/pump-7", ROOM_FOR_10 + SLOT - 1)
    put(ring, 0, 1)
    stat = (tmp_path / "ring").stat()
    assert stat.st_size == ROOM_FOR_10
    assert stat.st_blocks * 512 >= ROOM_FOR_10  # taken, not promised
    ring.close()


KILLED = """
import os, signal, sys
from pathlib import Path
from acclimate.streams.device.ring import WindowRing
from tests.streams.device.test_ring import put
ring = WindowRing(Path(sys.argv[1]), "works/pump-7", 4096 + 1000 * 88)
seq = 0
while True:
    put(ring, seq, 7)
    seq += 7
    print(seq, flush=True)
"""


@pytest.mark.parametrize("lines", [1, 30, 141, 300])  # after 142 calls it has gone round
def test_a_kill_loses_nothing_that_was_put(lines: int, tmp_path: Path):
    process = subprocess.Popen([sys.executable, "-c", KILLED, tmp_path / "ring"], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    done = [int(process.stdout.readline()) for _ in range(lines)][-1]
    process.send_signal(signal.SIGKILL)
    done = [done, *map(int, process.stdout.read().split())][-1]
    process.wait()
    process.stdout.close()
    ring = WindowRing(tmp_path / "ring", "works/pump-7", 4096 + 1000 * 88)
    found = [seq for seq, slot in ring.find(SESSION, 0, 2**40) if ring.read([slot]) is not None]
    assert found[-1] >= done - 1
    newest = range(max(0, found[-1] - 999 + 7), done)  # the call that was under way may have overwritten 7
    assert set(newest) <= set(found)
    put(ring, 5000, 3)
    # Of the call that was under way, half-written windows may still lie before these.
    added = [seq for seq, slot in ring.find(SESSION, 5000, 2**40) if ring.read([slot]) is not None]
    assert added == [5000, 5001, 5002]
    ring.close()


def test_damage_is_found_and_the_rest_is_read(tmp_path: Path):
    ring = WindowRing(tmp_path / "ring", "works/pump-7", ROOM_FOR_10)
    put(ring, 0, 10)
    ring.close()
    raw = bytearray((tmp_path / "ring").read_bytes())
    raw[4096 + 3 * 64 + 5] ^= 1  # entry of window 3
    raw[4096 + 10 * 64 + 6 * 24] ^= 1  # window 6
    (tmp_path / "ring").write_bytes(raw)
    ring = WindowRing(tmp_path / "ring", "works/pump-7", ROOM_FOR_10)
    assert [seq for seq, _ in ring.find(SESSION, 0, 9)] == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    kept = ring.read([slot for _, slot in ring.find(SESSION, 4, 9)])
    assert kept is not None
    assert kept.seq == 4
    np.testing.assert_array_equal(kept.windows, numbered(4, 2))  # up to the damaged one
    assert ring.read([slot for _, slot in ring.find(SESSION, 6, 9)]) is None
    ring.close()


def test_windows_of_another_shape_and_another_size_start_anew_and_are_counted(tmp_path: Path):
    ring = WindowRing(tmp_path / "ring", "works/pump-7", ROOM_FOR_10)
    put(ring, 0, 4)
    put(ring, 4, 3, answered=False)
    replaced = ring.put(SESSION, 7, [0], np.zeros((1, 1, 5), np.float32), np.zeros(1, np.float32))
    assert tuple(replaced) == (7, 3)
    ring.close()
    ring = WindowRing(tmp_path / "ring", "works/pump-7", ROOM_FOR_10 + 5 * SLOT)
    assert ring.windows == 1  # readable until something new comes
    assert put(ring, 8, 14) == (1, 0)
    assert content(ring) == list(range(8, 22))
    ring.close()


def test_unanswered_windows_come_oldest_first_by_session_and_are_remembered_as_answered(tmp_path: Path):
    ring = WindowRing(tmp_path / "ring", "works/pump-7", ROOM_FOR_10)
    put(ring, 5, 2, OTHER, answered=False)
    put(ring, 0, 3, answered=False)
    put(ring, 3, 1)
    put(ring, 4, 1, answered=False)
    runs = []
    while ring.unanswered:
        slots = ring.oldest_unanswered(2)
        kept = ring.read(slots)
        assert kept is not None
        runs.append((kept.session, kept.seq, len(kept.windows)))
        ring.mark_answered(slots, np.ones(len(slots), np.float32))
    assert runs == [(OTHER, 5, 2), (SESSION, 0, 2), (SESSION, 2, 1), (SESSION, 4, 1)]
    ring.mark_uploaded([slot for _, slot in ring.find(SESSION, 1, 2)], True)
    ring.close()
    ring = WindowRing(tmp_path / "ring", "works/pump-7", ROOM_FOR_10)
    assert ring.unanswered == 0
    assert [ring.uploaded(SESSION, seq) for seq in range(5)] == [False, True, True, False, False]
    ring.close()


def test_windows_of_different_rates_or_steps_are_never_read_as_one(tmp_path: Path):
    ring = WindowRing(tmp_path / "ring", "works/pump-7", ROOM_FOR_10)
    said = [(None, None), (12345.7, None), (12345.7, None), (12345.7, 2**31), (0.00012345, 7)]
    for seq, each in enumerate(said):
        ring.put(SESSION, seq, [1000 + seq], numbered(seq, 1), None, None, *each)
    ring.close()
    ring = WindowRing(tmp_path / "ring", "works/pump-7", ROOM_FOR_10)
    runs = []
    while ring.unanswered:
        slots = ring.oldest_unanswered(10)
        kept = ring.read(slots)
        assert kept is not None
        runs.append((kept.seq, len(kept.windows), kept.sampling_rate_hz, kept.step_samples))
        ring.mark_answered(slots[: len(kept.windows)], None)
    assert runs == [(0, 1, None, None), (1, 2, 12345.7, None), (3, 1, 12345.7, 2**31), (4, 1, 0.00012345, 7)]
    ring.close()


def test_overwritten_windows_that_nobody_answered_are_counted_apart(tmp_path: Path):
    ring = WindowRing(tmp_path / "ring", "works/pump-7", ROOM_FOR_10)
    put(ring, 0, 6, answered=False)
    put(ring, 6, 2)
    assert put(ring, 8, 6) == (4, 4)
    assert ring.unanswered == 2
    assert put(ring, 14, 30, answered=False) == (30, 22)  # 10 that were there, 20 that never fit
    assert (ring.windows, ring.unanswered) == (10, 10)
    ring.close()


def test_giving_way_frees_the_disk_and_later_windows_start_anew(tmp_path: Path):
    ring = WindowRing(tmp_path / "ring", "works/pump-7", ROOM_FOR_10)
    put(ring, 0, 7)
    assert tuple(ring.give_way()) == (7, 0)
    assert os.stat(tmp_path / "ring").st_size == 0
    assert put(ring, 7, 3) == (0, 0)
    assert content(ring) == [7, 8, 9]
    ring.close()


def test_a_file_in_use_of_another_device_or_that_is_no_ring_is_refused(tmp_path: Path):
    ring = WindowRing(tmp_path / "ring", "works/pump-7", ROOM_FOR_10)
    put(ring, 0, 1)
    with pytest.raises(ConfigError, match="in use"):
        WindowRing(tmp_path / "ring", "works/pump-7", ROOM_FOR_10)
    ring.close()
    with pytest.raises(ConfigError, match="works/pump-8"):
        WindowRing(tmp_path / "ring", "works/pump-8", ROOM_FOR_10)
    (tmp_path / "mine").write_bytes(b"something else")
    with pytest.raises(ConfigError, match="no ring"):
        WindowRing(tmp_path / "mine", "works/pump-7", ROOM_FOR_10)
    assert (tmp_path / "mine").read_bytes() == b"something else"
    small = WindowRing(tmp_path / "small", "works/pump-7", 4096 + SLOT - 1)
    with pytest.raises(ConfigError, match="not one window"):
        put(small, 0, 1)
    small.close()
