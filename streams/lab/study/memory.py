"""Peak memory of this process over a stretch of work, where Linux tells it."""

import ctypes
import sys
from pathlib import Path

__all__ = ["peak_bytes", "reset_peak", "resident_bytes"]

_STATUS = Path("/proc/self/status")


def reset_peak() -> bool:
    """Give unused heap back to the kernel and begin a new peak; return whether both could be done."""
    if not sys.platform.startswith("linux"):
        return False
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return False
    trim(0)  # what an earlier task left on the heap is no memory of the next one
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # containers may forbid it
        return False
    return True


def peak_bytes() -> int | None:
    """Return the peak of resident memory since the last `reset_peak`, interpreter and data included."""
    return _field("VmHWM")


def resident_bytes() -> int | None:
    """Return the resident memory now."""
    return _field("VmRSS")


def _field(name: str) -> int | None:
    try:
        text = _STATUS.read_text()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None
