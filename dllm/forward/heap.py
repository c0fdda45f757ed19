"""The C library's heap, told to keep what torch frees.

By default glibc gives activations of some MiB back to the system with every operation, which clears
their pages anew for the next one (measured on one core, 384 rows of 8 float32 layers of 512: 17 %
of a forward; logits of 120 to 480 rows of a vocabulary of 126,464: 25 to 30 % of their product).
"""

import ctypes
import os
from functools import cache


TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Parameters of `mallopt`, as in glibc's malloc.h."""
KEPT = 2**29
"""Bytes: so much unused memory stays with the process, besides what lies below memory in use."""
OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_")
"""Variables by which the user tells the heap how much to keep."""


@cache
def keep_freed_memory() -> None:
    """For the whole process; nothing where the C library is another, or where the user has said in
    the environment how its heap is to be."""
    if os.environ.keys() & OWN or "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", ""):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(MMAP_MAX, 0)  # no allocation is the system's own
    mallopt(TRIM_THRESHOLD, KEPT)
