"""Recorded methods: the authors' parameters of a trace -> options that decode the same way here.

Each is entered in the `METHODS` of its module under its name in the trace files; options are named
as on the command line and no sampler is imported.
"""

from dllm.conform.methods import (
    blocks,
    caches,
    freedave,
    learned,
    rankings,
    thresholds,
    windows,
)
from dllm.conform.methods.method import RecordedMethod


METHODS: dict[str, RecordedMethod] = {
    **thresholds.METHODS,
    **rankings.METHODS,
    **learned.METHODS,
    **blocks.METHODS,
    **caches.METHODS,
    **windows.METHODS,
    **freedave.METHODS,
}
