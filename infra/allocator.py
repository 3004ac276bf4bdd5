"""Keep freed memory in the process, for commands that allocate large tensors again and again.

glibc gives allocations above a threshold (128 KiB to 32 MiB, moving) to the kernel as soon as they are freed. A step of
training frees and allocates tensors of megabytes hundreds of times a second; every one of them is then mapped, zeroed
and faulted in page by page. Raising both thresholds made training 1.6 times faster; the price is that the process keeps
its peak size until it ends.
"""

import ctypes
import sys

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGE = 1 << 30
_LARGEST_OF_OLD_GLIBC = 32 << 20


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed, up to 1 GiB at the top of the heap; return whether it agreed.

    Call it at the start of a process. Elsewhere than on Linux with glibc it does nothing and returns False.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    mapped = mallopt(_M_MMAP_THRESHOLD, _LARGE) or mallopt(_M_MMAP_THRESHOLD, _LARGEST_OF_OLD_GLIBC)
    return bool(mapped) and bool(mallopt(_M_TRIM_THRESHOLD, _LARGE))
