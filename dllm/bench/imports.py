"""Import time of the engine and of a run beyond torch's own, in fresh interpreters."""

import subprocess
import sys
from collections.abc import Callable, Iterator

from dllm.bench.ratio import Ratio, alternate
from dllm.bench.sheet import Line, Sheet


REPEATS = 5
MODULES = ("dllm", "dllm.engine.loop, samplers.localleap", "dllm.runs.execute")


def sheet() -> Sheet:
    return Sheet(
        "Imports",
        ["Seconds that modules take to be imported beyond torch, in fresh interpreters."],
        {"beyond torch, s": "{:.2f}", "torch, s": "{:.2f}"},
        "beyond torch, s",
        _lines(),
    )


def _lines() -> Iterator[Line]:
    for modules in MODULES:
        timing = measure(modules, REPEATS)
        beyond = timing.ours - timing.reference
        yield Line(modules, {"beyond torch, s": beyond, "torch, s": timing.reference})


def measure(modules: str, repeats: int) -> Ratio:
    """Seconds to start Python with torch and `modules` against Python with torch alone."""
    return alternate(_start(f"import torch, {modules}"), _start("import torch"), repeats)


def _start(code: str) -> Callable[[], object]:
    return lambda: subprocess.run([sys.executable, "-c", code], check=True)
