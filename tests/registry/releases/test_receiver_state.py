"""What a receiver must not forget survives a kill at any point; S4 of the list of faults."""

import os
import random
import signal
from pathlib import Path

import pytest

import acclimate.registry.folder
from acclimate.adaptation.errors import ContractError
from acclimate.registry.releases.receiver_state import STATE_FILE, ReceiverState, read_state, write_state
from tests.support.signed import digest, trust

PLACES = range(1, 13)  # of a kill: three writes of four durable calls each


def state(epoch: int) -> ReceiverState:
    return ReceiverState(trust=trust(1 + epoch), epoch=epoch, release_sha256=digest(str(epoch)))


def test_a_new_folder_remembers_nothing_and_a_state_comes_back(tmp_path: Path):
    assert read_state(tmp_path / "new") is None
    write_state(tmp_path, state(3))
    found = read_state(tmp_path)
    assert found is not None
    assert (found.epoch, found.trust, found.installed) == (3, trust(4), None)


def test_no_flipped_bit_goes_unseen_and_the_error_says_what_to_do(tmp_path: Path):
    write_state(tmp_path, state(3))
    good = (tmp_path / STATE_FILE).read_bytes()
    for place in range(0, 8 * len(good), 61):
        damaged = bytearray(good)
        damaged[place // 8] ^= 1 << place % 8
        (tmp_path / STATE_FILE).write_bytes(damaged)
        with pytest.raises(ContractError, match="Remove it"):
            read_state(tmp_path)
    for length in range(0, len(good), 37):
        (tmp_path / STATE_FILE).write_bytes(good[:length])
        with pytest.raises(ContractError, match="Remove it"):
            read_state(tmp_path)


@pytest.mark.parametrize("times", [3, pytest.param(17, marks=pytest.mark.chaos)])
def test_a_kill_at_any_write_leaves_the_state_before_or_after_and_never_an_older_one(tmp_path: Path, times: int):
    seed = random.SystemRandom().randrange(2**32)
    places = [place for place in PLACES for _ in range(times)]
    random.Random(seed).shuffle(places)
    epoch = 0
    for place in places:
        told, killed = _write_until_killed(tmp_path, epoch + 1, place)
        assert killed
        found = read_state(tmp_path)
        assert (found.epoch if found else 0) in (told, told + 1), f"seed {seed}"
        assert told >= epoch, f"seed {seed}"
        epoch = found.epoch if found else 0
    print(f"{len(places)} kills up to epoch {epoch}, seed {seed}")
    assert epoch > len(places) // 2


def _write_until_killed(folder: Path, first: int, calls: int) -> tuple[int, bool]:
    """Write one epoch after the other in a child that is killed at its n-th durable call; return the last one told."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        left = [calls]

        def counted(function):
            def call(*arguments, **named):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **named)

            return call

        class Counted:
            """The operating system with a kill before its n-th durable call."""

            fsync = staticmethod(counted(os.fsync))
            open = staticmethod(counted(os.open))
            close, O_RDONLY = staticmethod(os.close), os.O_RDONLY

        acclimate.registry.folder.os = Counted  # type: ignore[attr-defined]
        Path.replace = counted(Path.replace)  # type: ignore[method-assign]
        for epoch in range(first, first + 100):
            write_state(folder, state(epoch))
            os.write(writing, b"%d\n" % epoch)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        lines = pipe.read().split()
    _, status = os.waitpid(child, 0)
    return int(lines[-1]) if lines else first - 1, os.WIFSIGNALED(status)
