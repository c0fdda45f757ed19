"""Replays a recorded file by what its `method` is."""

from collections.abc import Callable

from dllm.conform import completions, grades, traces
from dllm.conform.recorded import FileResult, Places, Recorded, Verdict
from dllm.errors import ConfigError


CHECKS: dict[str, Callable[[Recorded, Places], FileResult]] = {
    completions.METHOD: completions.check,
    grades.METHOD: grades.check,
}
"""Recorded methods that are no decoding: everything else is a trace."""


def check(recorded: Recorded, places: Places) -> FileResult:
    """Every case of the file; what it needs and is not there fails it."""
    try:
        return CHECKS.get(recorded.method, traces.check)(recorded, places)
    except ConfigError as error:
        return FileResult(recorded.path, Verdict.FAILED, reason=str(error))
