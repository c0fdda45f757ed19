"""Metrics of a training run: one JSON line per report, and a line on the terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class MetricLog:
    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a")

    def log(self, metrics: dict[str, Any], step: int) -> None:
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        self._file.flush()
        shown = "  ".join(f"{k} {v:.4g}" for k, v in metrics.items())
        print(f"step {step}  {shown}", flush=True)
