"""Graded samples for tests."""

from typing import Any

from dllm.metrics.definitions import SampleResult


def sample(name: str, **changes: Any) -> SampleResult:
    given: dict[str, Any] = {
        "id": name,
        "task": "copy",
        "prompt": "copy: Ada",
        "output": "Ada",
        "tokens": [5, 6, 7, 1],
        "correct": True,
        "failure": None,
        "prompt_length": 6,
        "effective": 3,
        "committed": 4,
        "steps": 4,
        "forwards": {"step": 4},
        "aux_forwards": 0,
        "rows": 40,
        "enfe": 4.0,
        "seconds": 1.0,
        "model_seconds": 0.5,
        "latency": 1.0,
        "peak_memory_mb": 10.0,
    }
    return SampleResult(**(given | changes))
