"""The allocator's thresholds: raised where glibc is, and harmless elsewhere."""

import ctypes
import platform
import subprocess
import sys

import pytest

from acclimate.infra import allocator

_FAULTS = """
import resource, sys
from acclimate.infra.allocator import keep_freed_memory
assert not int(sys.argv[1]) or keep_freed_memory()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    block = bytearray(48 << 20)
    del block
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_used_again_and_not_mapped_anew() -> None:
    faults = [
        int(subprocess.run([sys.executable, "-c", _FAULTS, keep], check=True, capture_output=True, text=True).stdout)
        for keep in ("0", "1")
    ]
    assert faults[1] < faults[0] / 5


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not allocator.keep_freed_memory()


def test_a_c_library_without_the_setting_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not allocator.keep_freed_memory()
