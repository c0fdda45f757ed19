"""The tracker that tracks nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dllm.tracking.tracker import RunInfo


@dataclass(frozen=True)
class NoTracker:
    def start(self, run: RunInfo) -> None:
        pass

    def log(self, values: Mapping[str, float], axis: str, step: int) -> None:
        pass

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        pass

    def summary(self, values: Mapping[str, Any]) -> None:
        pass

    def finish(self) -> None:
        pass
