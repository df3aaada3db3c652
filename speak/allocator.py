"""The C allocator's setting that keeps memory between tensors, for programs that make many large ones.

glibc gives large blocks back to the system when they are freed, and the next tensor of that size faults its pages in
again, at a fifth of the speed of memory. The command line keeps them; importing speak does not, a call does.
"""

from __future__ import annotations

import ctypes
import os
import sys

# mallopt's parameters (malloc.h)
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4

GIBIBYTE = 1 << 30
SETTINGS = (
    (M_MMAP_MAX, 0),  # blocks of any size come from the heap: the threshold alone stops at 32 MiB
    (M_TRIM_THRESHOLD, 2 * GIBIBYTE - 1),  # and up to this much of its top stays
    (M_TOP_PAD, 64 << 20),
)

_keeps = False


def keep_memory() -> bool:
    """Makes this process keep freed memory for its next tensors; True where it took effect (Linux with glibc).

    SPEAK_KEEP_MEMORY=0 in the environment prevents it.
    """
    if not sys.platform.startswith("linux") or os.environ.get("SPEAK_KEEP_MEMORY") == "0":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has none
        return False
    mallopt.argtypes, mallopt.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    global _keeps
    _keeps = all([mallopt(parameter, value) == 1 for parameter, value in SETTINGS])
    return _keeps


def give_back_holes() -> None:
    """Gives back what lies free between blocks in use, where this process keeps memory; a tenth of a second at most.

    Between large blocks that come and go, small ones that stay cut the heap into holes that fit nothing: over a long
    run it would grow.
    """
    if _keeps:
        ctypes.CDLL(None).malloc_trim(0)
