"""Keeps Python's cyclic garbage collector out of a check.

What a check finds out is kept on purpose, in many small objects that refer to each other. The
collector would walk through all of them every few hundred allocations and find nothing to free.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Within it nothing is collected; afterwards everything is as before."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
