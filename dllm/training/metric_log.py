"""Where the metrics of a training run go: a file of JSON lines, the terminal and a tracker.

The file is the truth. After a kill it may be ahead of the saved state: what is ahead is dropped,
the rest is handed to the tracker again, so that both end up with one line per report.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from dllm.errors import ConfigError
from dllm.tracking.tracker import Tracker


class MetricLog:
    """`done`: steps of the saved state that the run goes on from."""

    def __init__(self, path: Path, tracker: Tracker, done: int = 0) -> None:
        self._tracker = tracker
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in _lines(path) if line["step"] <= done]
        partial = path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(line) + "\n" for line in kept))
        os.replace(partial, path)
        for line in kept:
            self._track({k: v for k, v in line.items() if k != "step"}, line["step"])
        self._file = path.open("a")

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        self._file.flush()
        self._track(metrics, step)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        print(f"step {step}  {shown}", flush=True)

    def close(self) -> None:
        self._file.close()

    def _track(self, metrics: Mapping[str, float], step: int) -> None:
        self._tracker.log(metrics, axis="training_step", step=step)


def _lines(path: Path) -> list[dict]:
    """Complete lines of the file; a kill can leave half a line at its end."""
    if not path.is_file():
        return []
    try:
        return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    except ValueError:
        raise ConfigError(f"{path} is damaged: remove it or choose another folder") from None
