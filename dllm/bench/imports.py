"""Import time of the engine and of a run beyond torch's own, in fresh interpreters."""

import subprocess
import sys
from collections.abc import Callable

from dllm.bench.ratio import Ratio, alternate


def measure(modules: str, repeats: int = 5) -> Ratio:
    """Seconds to start Python with torch and `modules` against Python with torch alone."""
    return alternate(_start(f"import torch, {modules}"), _start("import torch"), repeats)


def _start(code: str) -> Callable[[], object]:
    return lambda: subprocess.run([sys.executable, "-c", code], check=True)
