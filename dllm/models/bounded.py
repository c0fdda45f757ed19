"""A bound on the memory that other people's programs (chat templates) may take in this process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


_PAGES = Path("/proc/self/statm")


@contextmanager
def bounded_memory(more: int) -> Iterator[None]:
    """Within it the process can get `more` bytes beyond what it has, then a `MemoryError`. Only
    where the system tells what it has (Linux)."""
    if not _PAGES.exists():
        yield
        return
    import resource

    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(_PAGES.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    bounds = [taken + more, *(limit for limit in (before, hard) if limit != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_AS, (min(bounds), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))
