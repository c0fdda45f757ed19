"""The tracker that tracks nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dllm.tracking.tracker import RunInfo


@dataclass(frozen=True)
class NoTracker:
    @property
    def destination(self) -> None:
        return None

    def check(self) -> None:
        pass

    def start(self, run: RunInfo) -> None:
        pass

    def log(self, values: Mapping[str, float], axis: str, step: int) -> None:
        pass

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        pass

    def summary(self, values: Mapping[str, Any]) -> None:
        pass

    def attach(self, name: str, files: Sequence[Path]) -> None:
        pass

    def finish(self) -> None:
        pass
